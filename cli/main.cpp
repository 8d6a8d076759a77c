#include "cli/commands.h"
int main(int argc, char** argv) {
  CLI::App app{"Cohort"};
  CLI11_PARSE(app, argc, argv);
}
