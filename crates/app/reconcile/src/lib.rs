//! Desired to real: the loops that make jobs and endpoints happen.
