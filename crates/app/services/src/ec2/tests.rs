//! EC2's operations on a store in memory, as the root of an account.
