// A run of supervised fine-tuning from its config to its last checkpoint: the cold start of R1
// (arXiv:2501.12948), distillation on traces, instruction tuning.
//
//   JSONL -> examples -> packed rows -> masked loss -> train step -> log, validation, checkpoint
//
// data.train are JSONL files (rl/sft_data.h) with weights, data.validation is one; a step is
// train.global_batch rows of data.seq_len tokens, packed (rl/sft_rows.h). metrics of a step, beside
// lr, grad_norm and others that every run has:
//
//   loss                 what is learned from: lm_loss + train.mtp_loss_weight x mtp_loss, and
//                        with sft.distill the terms of rl/sft_loss.h in place of lm_loss
//   lm_loss, mtp_loss    nats a trained token of the step
//   distill_kl           with sft.distill: the divergence, a token of which a teacher told
//   trained_tokens       so far: those that count in the loss
//   tokens               so far: all tokens of examples, prompts included; tokens_per_second
//                        likewise
//   epoch                examples so far over those of an epoch
//   packing_efficiency   tokens of the step's rows over global_batch x seq_len
//   examples_left_out    of data.train, longer than data.seq_len
//   val_loss             nats a trained token of data.validation, on validation steps
#pragma once
#include "core/config/config.h"

namespace cohort::rl {

/// Collective over all ranks of the job. Starts from the weights and the tokenizer of run.model, or
/// without it from new weights of the config's model and data.tokenizer (beside which a chat
/// template may stand), or goes on from the newest good checkpoint of run.dir (`resume`), bit for
/// bit on the same mesh. With train.epochs the run has as many steps as hold them; the last is
/// filled up from the epoch that would follow. Throws InputError for what the user can put right.
void sft(const core::Config& config, bool resume);

}  // namespace cohort::rl
