// Flat loops of the optimizers are compiled for several instruction sets and chosen when the
// program starts: core is built for any x86-64, and the loops gain from wide vectors.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define COHORT_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define COHORT_VECTOR_CLONES
#endif
