//! Records of the container registry (ECR): repositories, manifests, tags.
