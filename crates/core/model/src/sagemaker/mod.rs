//! Records and lifecycles of SageMaker: training jobs, models, endpoint configurations, endpoints.
