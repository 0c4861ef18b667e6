//! The platform acting for an execution role: transfers, image pulls, log writes (IAM-52, NI-12).
