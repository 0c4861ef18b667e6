//! Records of IAM: users, access keys, roles and their inline policies.
