//! One decision of the engine in the words of the simulator.

use isolarium_policy::{
    Authority, Cited, Explanation, NamedPolicy, Outcome, PolicyType, Position, Question, ResourceSide, evaluate,
};
use isolarium_wire::shapes::iam as shapes;

/// A simulation made ready: what decides, and what the answers have in common.
pub(super) struct Simulation {
    pub(super) authority: Authority,
    pub(super) side: ResourceSide,
    pub(super) kind: shapes::PolicySourceType,
    /// Condition keys that policies name and nobody gave.
    pub(super) missing: Vec<String>,
    /// Whether several resources are simulated: then each result tells its resource's too.
    pub(super) several: bool,
}

impl Simulation {
    /// What the engine says about one action on one resource.
    pub(super) fn result(&self, question: &Question) -> shapes::EvaluationResult {
        let story = evaluate(&self.authority, question, &self.side);
        let decision = decision(story.outcome);
        let matched = self.matched(&story);
        let boundary = self.bounded(question);
        let organizations = self.railed(question);
        let specific = shapes::ResourceSpecificResult {
            eval_resource_name: question.resource.clone(),
            matched_statements: Some(matched.clone()),
            missing_context_values: Some(self.missing.clone()),
            permissions_boundary_decision_detail: boundary.clone(),
            ..shapes::ResourceSpecificResult::new(decision)
        };
        shapes::EvaluationResult {
            eval_action_name: question.action.clone(),
            eval_resource_name: Some(question.resource.clone()),
            matched_statements: Some(matched),
            missing_context_values: Some(self.missing.clone()),
            permissions_boundary_decision_detail: boundary,
            organizations_decision_detail: organizations,
            resource_specific_results: self.several.then(|| vec![specific]),
            ..shapes::EvaluationResult::new(decision)
        }
    }

    /// Whether the boundary alone would allow; `None` without one.
    fn bounded(&self, question: &Question) -> Option<shapes::PermissionsBoundaryDecisionDetail> {
        let boundary = self.authority.boundary.clone()?;
        let alone = Authority {
            identity: vec![boundary],
            ..Authority::bare(self.authority.principal.clone(), self.authority.context.clone())
        };
        let allowed = evaluate(&alone, question, &ResourceSide::default()).is_allowed();
        Some(shapes::PermissionsBoundaryDecisionDetail {
            allowed_by_permissions_boundary: Some(allowed),
        })
    }

    /// Whether every level of the organisation alone would allow; `None` without one.
    fn railed(&self, question: &Question) -> Option<shapes::OrganizationsDecisionDetail> {
        let allows = |level: &Vec<NamedPolicy>| {
            let alone = Authority {
                identity: level.clone(),
                ..Authority::bare(self.authority.principal.clone(), self.authority.context.clone())
            };
            evaluate(&alone, question, &ResourceSide::default()).is_allowed()
        };
        let levels = &self.authority.organization;
        (!levels.is_empty()).then(|| shapes::OrganizationsDecisionDetail {
            allowed_by_organizations: Some(levels.iter().all(allows)),
        })
    }

    /// The statements that decided: those that deny, else those that allow. The boundary's and the organisation's have
    /// members of their own.
    fn matched(&self, story: &Explanation) -> Vec<shapes::Statement> {
        let cited = if story.denied_by.is_empty() {
            &story.allowed_by
        } else {
            &story.denied_by
        };
        let elsewhere = [PolicyType::Boundary, PolicyType::Organization];
        let own = cited.iter().filter(|cited| !elsewhere.contains(&cited.policy_type));
        own.map(|cited| self.statement(cited)).collect()
    }

    fn statement(&self, cited: &Cited) -> shapes::Statement {
        let (id, kind) = self.source(cited);
        let place = |position: Position| shapes::Position {
            line: i64::try_from(position.line).ok(),
            column: i64::try_from(position.column).ok(),
        };
        shapes::Statement {
            source_policy_id: Some(id),
            source_policy_type: Some(kind),
            start_position: cited.span.map(|(start, _)| place(start)),
            end_position: cited.span.map(|(_, end)| place(end)),
        }
    }

    /// Name and kind of a policy, from the name under which explanations cite it.
    fn source(&self, cited: &Cited) -> (String, shapes::PolicySourceType) {
        use shapes::PolicySourceType as Kind;
        if cited.policy_type == PolicyType::Resource {
            return (cited.policy.clone(), Kind::Resource);
        }
        let (of_group, policy) = match cited
            .policy
            .strip_prefix("group ")
            .and_then(|rest| rest.split_once(": "))
        {
            Some((_, policy)) => (true, policy),
            None => (false, cited.policy.as_str()),
        };
        if let Some(arn) = policy.strip_prefix("arn:aws:iam::") {
            let arn = arn.split(' ').next().unwrap_or(arn);
            let name = arn.rsplit('/').next().unwrap_or(arn);
            let kind = if arn.starts_with("aws:") {
                Kind::AwsManaged
            } else {
                Kind::UserManaged
            };
            return (name.to_owned(), kind);
        }
        let kind = if of_group {
            Kind::Group
        } else if policy.starts_with("PolicyInputList.") {
            Kind::None
        } else {
            self.kind
        };
        (policy.to_owned(), kind)
    }
}

fn decision(outcome: Outcome) -> shapes::PolicyEvaluationDecisionType {
    match outcome {
        Outcome::Allowed => shapes::PolicyEvaluationDecisionType::Allowed,
        Outcome::ExplicitDeny => shapes::PolicyEvaluationDecisionType::ExplicitDeny,
        Outcome::ImplicitDeny => shapes::PolicyEvaluationDecisionType::ImplicitDeny,
    }
}
