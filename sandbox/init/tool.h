/* Programs of the host's that sandbox-init runs on its way. */
#ifndef TOOL_H
#define TOOL_H

#include <stddef.h>

/*
 * Runs argv[0] with no input and an empty environment, and waits for it. `said` gets the first line of its stderr.
 * Returns 0, or an errno: ECHILD when it came to any other end than exit code 0.
 */
int run_tool(char *const argv[], char *said, size_t room);

#endif
