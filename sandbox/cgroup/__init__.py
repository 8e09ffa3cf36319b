"""Control groups: reading and writing their files, finding their trees, and the handle on one of them."""
