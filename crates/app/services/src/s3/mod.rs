//! S3 over the object store: the s3s backend, with every request authorised.
