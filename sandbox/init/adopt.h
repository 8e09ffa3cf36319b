/* The guard that nobody has given anything. */
#ifndef ADOPT_H
#define ADOPT_H

/* Puts fds 0 to 6 in place, as they come from the socket that is stdin. Returns 0 or an errno. */
int adopt(void);

#endif
