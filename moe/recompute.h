// Activation checkpointing: keep a layer's input, run the layer again in the backward pass.
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <vector>

namespace cohort::moe {

/// body(x) without keeping what its backward pass needs: that is computed anew from x when the
/// gradient arrives. body must give the same values each time (a router must reuse its choice) and
/// is called once now and once for each backward pass, in the reverse order of the calls: on all ranks alike,
/// so that the collectives in it meet.
std::vector<at::Tensor> recompute(
    const at::Tensor& x, const std::function<std::vector<at::Tensor>(const at::Tensor&)>& body);

}  // namespace cohort::moe
