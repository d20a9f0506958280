#include "cli/sweep_run.hpp"

#include <memory>

#include "cli/command.hpp"

namespace keyseek::cli {

Command add_sweep(CLI::App& tool) {
  auto options = std::make_shared<SweepOptions>();
  CLI::App* app = tool.add_subcommand(
      "sweep", "Measure recall, keys scanned and time over the dials; append a JSON row for each");
  options->data.add(*app)->required();
  app->add_option("--out", options->out, "Rows are appended; those that are there are not repeated")
      ->required()
      ->type_name("FILE");
  app->add_option("--index", options->indexes, "Indexes: flat, sketch, projection")
      ->delimiter(',')
      ->type_name("NAME,..")
      ->capture_default_str();
  add_count(*app, "--k", options->k, "Keys per query");
  add_count(*app, "--points", options->points, "Points of the grid of dials; 0: all");
  add_count(*app, "--repeats", options->repeats, "Rounds; a time is the median over them");
  app->add_flag("--no-warm", options->no_warm, "Do not start from the hits of the step before");
  app->add_flag("--single", options->single,
                "Every query is a step of its own, without warm start");
  app->add_flag("--cold", options->cold, "Measure every point also with caches cold between steps");
  add_count(*app, "--cold-steps", options->cold_steps, "Steps that are timed for a cold row");
  app->add_option("--pin", options->pin, "CPU to search on")
      ->transform(whole_number())
      ->type_name("CPU");
  app->add_option("--train", options->train, "Training queries (vectors) instead of the data's")
      ->type_name("FILE");
  app->add_flag("--use-lists", options->use_lists,
                "Take exact lists from the data (learn_neighbors)");
  add_options(*app, options->params);
  add_count(*app, "--threads", options->threads,
            "Threads to build with (0: all); searching is one thread");
  add_options(*app, options->console);
  app->footer(
      "Example:\n"
      "  keyseek sweep --data datasets/sample/smollm2-8k-pydoc.attn.h5:L15/K0 "
      "--index flat,projection --k 100 --threads 1 --points 8 --out R.jsonl");
  return {app, [options] { run_sweep(*options); }};
}

}  // namespace keyseek::cli
