//! The privileged process: messages, descriptor passing, server; the client implements the traits of `runtime`.
