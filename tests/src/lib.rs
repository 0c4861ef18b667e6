//! Suites that drive the real binary; see the folders beside this file.
