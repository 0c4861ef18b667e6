//! Records of CloudWatch Logs: groups and streams.
