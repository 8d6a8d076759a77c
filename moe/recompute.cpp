#include "moe/recompute.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace cohort::moe {
namespace {

using torch::autograd::variable_list;
using Body = std::function<std::vector<at::Tensor>(const at::Tensor&)>;

struct SavedBody : torch::CustomClassHolder {
  explicit SavedBody(Body b) : body(std::move(b)) {}
  Body body;
};

struct RecomputeFunction : torch::autograd::Function<RecomputeFunction> {
  static variable_list forward(torch::autograd::AutogradContext* context,
                               const at::Tensor& x,
                               const Body& body) {
    context->saved_data["body"] = c10::IValue::make_capsule(c10::make_intrusive<SavedBody>(body));
    context->save_for_backward({x});
    return body(x.detach());  // forward of a Function runs without gradients
  }

  static variable_list backward(torch::autograd::AutogradContext* context,
                                variable_list gradients) {
    const auto body =
        static_cast<const SavedBody&>(*context->saved_data["body"].toCapsule()).body;
    const at::Tensor x = context->get_saved_variables()[0].detach().requires_grad_();
    variable_list outputs, wanted;
    {
      at::AutoGradMode enabled(true);
      const auto all = body(x);
      for (size_t i = 0; i < all.size(); ++i) {
        if (!gradients[i].defined() || !all[i].requires_grad()) continue;
        outputs.push_back(all[i]);
        wanted.push_back(gradients[i]);
      }
    }
    torch::autograd::backward(outputs, wanted);
    return {x.grad(), at::Tensor()};
  }
};

}  // namespace

std::vector<at::Tensor> recompute(const at::Tensor& x, const Body& body) {
  return RecomputeFunction::apply(x, body);
}

}  // namespace cohort::moe
