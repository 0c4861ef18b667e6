//! ListMetrics.

use super::{invalid, shapes, shown};
use crate::{Ctx, Operation};
use isolarium_model::Timestamp;
use isolarium_policy::{Granted, Question};
use isolarium_store::metrics::SeriesQuery;
use isolarium_wire::ApiError;

/// Series of a page.
const PAGE: usize = 500;
/// `PT3H` in milliseconds.
const RECENT: i64 = 3 * 3_600_000;

impl Operation for shapes::ListMetricsInput {
    const SERVICE: &'static str = "cloudwatch";
    const NAME: &'static str = "ListMetrics";
    type Output = shapes::ListMetricsOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("cloudwatch:ListMetrics")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let own = ctx.caller.scope.account.as_str();
        if request.owning_account.as_deref().is_some_and(|account| account != own) {
            return Err(invalid(
                "There are no linked accounts: OwningAccount must be the caller's.",
            ));
        }
        let after = request.next_token.map(|token| token.parse::<i64>()).transpose();
        let after = after.map_err(|_| ApiError::client("InvalidParameterValueException", "Invalid nextToken"))?;
        let now = ctx.clock.now();
        let query = SeriesQuery {
            namespace: request.namespace,
            name: request.metric_name,
            dimensions: request
                .dimensions
                .into_iter()
                .flatten()
                .map(|filter| (filter.name, filter.value))
                .collect(),
            since: request.recently_active.map(|_| Timestamp(now.0.saturating_sub(RECENT))),
            after: after.unwrap_or(0),
            limit: PAGE,
        };
        let (found, next) = ctx
            .metrics
            .list(&ctx.caller.scope, &query, now)
            .map_err(ApiError::internal)?;
        Ok(shapes::ListMetricsOutput {
            metrics: Some(found.into_iter().map(shown).collect()),
            next_token: next.map(|id| id.to_string()),
            owning_accounts: None,
        })
    }
}
