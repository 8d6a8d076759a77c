// Worked examples before every question of a task (few-shot prompting), as options of the task:
//   few_shot           0: how many
//   few_shot_file      of task jsonl: JSON lines of the examples, with the task's keys; without it
//                      they are training problems of the task
//   few_shot_target    what stands behind an example's prompt: a template of its fields. Default:
//                      "{solution}\n#### {answer}" for examples that have a solution (GSM8K), else
//                      "{answer}"
//   few_shot_separator "\n\n": behind each example
//   few_shot_choice    first: the same ones for every question, in the order of the file; random:
//                      drawn for each question by the task's seed, whatever else is asked
// A problem is never its own example.
#pragma once
#include <memory>

#include "rl/tasks/task.h"

namespace cohort::rl {

/// Whether any of these options is given.
bool has_few_shot_options(const TaskConfig& config);

/// The task that the other options make, with the examples before its prompts. Throws InputError
/// for a bad option or file, or where there are not enough examples.
std::unique_ptr<Task> make_few_shot_task(const TaskConfig& config);

}  // namespace cohort::rl
