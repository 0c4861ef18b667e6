//! Random cases, the same for the same seed.

use super::{ACCOUNT, Case, OTHER, ROLE_ID, USER_ID};
use serde_json::{Map, Value, json};

/// What a case is mostly about; each has cases of its own shape.
pub const FAMILIES: &[&str] = &[
    "operators",
    "sets",
    "missing keys",
    "variables",
    "elements",
    "arns",
    "boundaries",
    "sessions",
    "resource policies",
    "cross-account",
    "endpoints",
    "trust",
    "organisations",
    "mixed",
];

/// A small generator of numbers (splitmix64): no clock and no dependency, so that a seed is all there is to know.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True in `times` of `of` draws.
    fn in_of(&mut self, times: u64, of: u64) -> bool {
        self.next() % of < times
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        let at = self.below(from.len());
        from.get(at).copied().unwrap_or("")
    }

    /// One to `most` of them.
    fn some(&mut self, from: &[&str], most: usize) -> Vec<String> {
        let count = 1 + self.below(most);
        (0..count).map(|_| self.pick(from).to_owned()).collect()
    }
}

const ACTIONS: &[&str] = &[
    "s3:GetObject",
    "s3:PutObject",
    "s3:ListBucket",
    "sagemaker:InvokeEndpoint",
    "sagemaker:CreateModel",
    "iam:PassRole",
];
const ACTION_PATTERNS: &[&str] = &[
    "*",
    "s3:*",
    "s3:GetObject",
    "S3:getobject",
    "s3:Get*",
    "s3:?etObject",
    "s3:*Object",
    "sagemaker:*",
    "sagemaker:Invoke*",
    "sagemaker:Create*",
    "iam:*",
    "iam:PassRole",
];
const RESOURCES: &[&str] = &[
    "*",
    "arn:aws:s3:::bucket",
    "arn:aws:s3:::bucket/key",
    "arn:aws:s3:::bucket/alice/a:b",
    "arn:aws:s3:::Bucket/key",
    "arn:aws:s3:::bucket/*",
    "arn:aws:sagemaker:eu-west-1:111122223333:endpoint/myendpoint",
    "arn:aws:sagemaker:eu-west-1:444455556666:model/m-1",
    "arn:aws:iam::111122223333:role/worker",
];
const RESOURCE_PATTERNS: &[&str] = &[
    "*",
    "arn:aws:s3:::*",
    "arn:aws:s3:::bucket",
    "arn:aws:s3:::bucket/*",
    "arn:aws:s3:::bucket/k?y",
    "arn:aws:s3:::b*/*e*",
    "arn:aws:s3:::?ucket*",
    "arn:aws:s3:*",
    "arn:aws:s3:::bucket/${aws:username}/*",
    "arn:aws:s3:::bucket/${aws:PrincipalTag/team, 'alice'}/*",
    "arn:aws:s3:::bucket/${*}",
    "arn:aws:s3:::${aws:TagKeys}/key",
    "arn:aws:sagemaker:*:*:endpoint/MyEndpoint",
    "arn:aws:sagemaker:eu-west-1:111122223333:*",
    "arn:aws:sagemaker:*:endpoint/my*",
    "arn:aws:sagemaker:EU-WEST-1:*:endpoint/myendpoint",
    "arn:aws:sagemaker",
    "arn:aws:iam::*:role/*",
];
const CALLERS: &[&str] = &[
    "user:alice",
    "user:bob",
    "session:worker/s1",
    "root",
    "other:user:alice",
    "other:session:worker/s1",
];
/// Callers that only a resource's policy can allow.
const NOBODIES: &[&str] = &["anonymous", "service:logs.amazonaws.com"];
const PRINCIPALS: &[&str] = &[
    ACCOUNT,
    OTHER,
    "arn:aws:iam::111122223333:root",
    "arn:aws:iam::444455556666:root",
    "arn:aws:iam::111122223333:user/alice",
    "arn:aws:iam::444455556666:user/alice",
    "arn:aws:iam::111122223333:role/worker",
    "arn:aws:iam::444455556666:role/worker",
    "arn:aws:sts::111122223333:assumed-role/worker/s1",
    "arn:aws:sts::444455556666:assumed-role/worker/s1",
    USER_ID,
    ROLE_ID,
];

/// Keys, operators without `Not` and `IfExists`, values of the request, values of a policy.
struct Kind {
    keys: &'static [&'static str],
    operators: &'static [&'static str],
    given: &'static [&'static str],
    wanted: &'static [&'static str],
}

const STRINGS: Kind = Kind {
    keys: &[
        "aws:username",
        "aws:PrincipalTag/team",
        "s3:prefix",
        "sagemaker:InstanceTypes",
        "aws:TagKeys",
    ],
    operators: &[
        "StringEquals",
        "StringNotEquals",
        "StringEqualsIgnoreCase",
        "StringNotEqualsIgnoreCase",
        "StringLike",
        "StringNotLike",
    ],
    given: &["alice", "Alice", "ALICE", "bob", "", "*", "alice/x", "ünï", "ÜNÏ"],
    wanted: &[
        "alice",
        "ALICE",
        "bob",
        "*",
        "a*",
        "?ob",
        "",
        "ünï",
        "${aws:username}",
        "${aws:PrincipalTag/team, 'bob'}",
        "${*}",
        "${aws:TagKeys}",
        "${s3:prefix}/x",
    ],
};
const NUMBERS: Kind = Kind {
    keys: &["s3:max-keys", "sagemaker:MaxRuntimeInSeconds"],
    operators: &[
        "NumericEquals",
        "NumericNotEquals",
        "NumericLessThan",
        "NumericLessThanEquals",
        "NumericGreaterThan",
        "NumericGreaterThanEquals",
    ],
    given: &["0", "10", "10.0", "-3", "1e2", "99.5", "100", "ten"],
    wanted: &["0", "10", "1e1", "-2.5", "100", "99"],
};
const DATES: Kind = Kind {
    keys: &["aws:CurrentTime", "aws:TokenIssueTime"],
    operators: &[
        "DateEquals",
        "DateNotEquals",
        "DateLessThan",
        "DateLessThanEquals",
        "DateGreaterThan",
        "DateGreaterThanEquals",
    ],
    given: &[
        "2026-01-01T00:00:00Z",
        "2026-06-30T12:00:00Z",
        "1767225600",
        "2025-12-31T23:59:59Z",
        "never",
    ],
    wanted: &[
        "2026",
        "2026-01",
        "2026-01-01",
        "2026-01-01T01:00:00+01:00",
        "2026-06-30T12:00:00Z",
        "1767225600",
        "2024-02-29T00:00:00-05:30",
    ],
};
const BOOLS: Kind = Kind {
    keys: &["aws:SecureTransport", "sagemaker:NetworkIsolation"],
    operators: &["Bool"],
    given: &["true", "false", "True", "yes"],
    wanted: &["true", "false", "TRUE"],
};
const BYTES: Kind = Kind {
    keys: &["kms:Binary"],
    operators: &["BinaryEquals"],
    given: &["aGVsbG8=", "aGk=", "", "%"],
    wanted: &["aGVsbG8=", "aGk="],
};
const ADDRESSES: Kind = Kind {
    keys: &["aws:SourceIp", "aws:VpcSourceIp"],
    operators: &["IpAddress", "NotIpAddress"],
    given: &["10.1.2.3", "203.0.113.9", "2001:db8::1", "here"],
    wanted: &[
        "10.0.0.0/8",
        "10.1.2.3",
        "203.0.113.0/25",
        "0.0.0.0/0",
        "2001:db8::/32",
        "::/0",
    ],
};
const ARNS: Kind = Kind {
    keys: &["aws:PrincipalArn", "aws:SourceArn", "sagemaker:ModelArn"],
    operators: &["ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"],
    given: &[
        "arn:aws:iam::111122223333:role/worker",
        "arn:aws:iam::444455556666:role/a:b",
        "arn:aws:sagemaker:eu-west-1:111122223333:model/m-1",
        "arn:aws:s3:::bucket",
        "text",
    ],
    wanted: &[
        "arn:aws:iam::111122223333:role/*",
        "arn:aws:iam::*:role/?*",
        "arn:aws:iam::*",
        "*",
        "arn:*:*:*:*:*",
        "arn:aws:sagemaker:*:111122223333:model/M-1",
        "arn:aws:*:role/worker",
        "arn:aws:s3:::${aws:PrincipalTag/team}",
        "arn:aws:iam::${aws:PrincipalAccount}:role/*",
    ],
};
const KINDS: &[&Kind] = &[&STRINGS, &NUMBERS, &DATES, &BOOLS, &BYTES, &ADDRESSES, &ARNS];

/// A case of the family; the same for the same chance.
pub fn case(family: &str, chance: &mut Chance) -> Case {
    let mut case = Case {
        family: family.into(),
        caller: chance.pick(CALLERS).into(),
        action: chance.pick(ACTIONS).into(),
        ..Case::default()
    };
    case.resource = fitting(&case.action, chance);
    surroundings(&mut case, chance);
    let g = &mut Writer {
        chance,
        resource: case.resource.clone(),
        action: case.action.clone(),
    };
    match family {
        "operators" | "sets" | "missing keys" | "arns" | "variables" => {
            let conditions = g.conditions(family);
            let mut statement = g.about(family == "variables");
            let deny = g.chance.in_of(1, 3);
            statement.insert("Effect".into(), if deny { "Deny" } else { "Allow" }.into());
            statement.insert("Condition".into(), conditions);
            let mut statements = vec![Value::Object(statement)];
            if deny {
                statements.push(json!({"Effect": "Allow", "Action": "*", "Resource": "*"}));
            }
            case.caller = "user:alice".into();
            case.identity = vec![g.document(statements, None)];
            if family == "missing keys" {
                let keep = g.chance.below(3);
                case.context = case.context.into_iter().take(keep).collect();
            }
        }
        "elements" => {
            case.caller = "user:alice".into();
            case.identity = g.policies(2);
        }
        "boundaries" => {
            case.identity = g.generous();
            case.boundary = Some(g.policy(None));
            if g.chance.in_of(1, 3) {
                case.resource_policy = Some(g.policy(Some(false)));
            }
        }
        "sessions" => {
            case.caller = "session:worker/s1".into();
            case.identity = g.generous();
            case.session = Some(g.policies(2));
            if g.chance.in_of(1, 3) {
                case.boundary = Some(g.policy(None));
            }
            if g.chance.in_of(1, 3) {
                case.resource_policy = Some(g.policy(Some(false)));
            }
        }
        "resource policies" => {
            if g.chance.in_of(1, 4) {
                case.caller = g.chance.pick(NOBODIES).into();
            }
            case.resource_policy = Some(g.policy(Some(false)));
            if g.chance.in_of(1, 2) {
                case.identity = g.generous();
            }
        }
        "cross-account" => {
            case.owner = Some(g.chance.pick(&[ACCOUNT, OTHER]).into());
            case.identity = g.generous();
            case.resource_policy = g.chance.in_of(5, 6).then(|| g.policy(Some(false)));
            if g.chance.in_of(1, 4) {
                case.boundary = Some(g.policy(None));
            }
        }
        "endpoints" => {
            case.gateway = g.chance.in_of(1, 2);
            case.endpoint = Some(g.policy(Some(true)));
            case.identity = g.generous();
            if g.chance.in_of(1, 3) {
                case.resource_policy = Some(g.policy(Some(false)));
            }
        }
        "trust" => {
            case.trust = true;
            case.action = "sts:AssumeRole".into();
            case.resource = "arn:aws:iam::111122223333:role/worker".into();
            case.owner = Some(ACCOUNT.into());
            if g.chance.in_of(1, 3) {
                case.caller = "service:sagemaker.amazonaws.com".into();
            }
            case.resource_policy = Some(g.trust());
            if g.chance.in_of(1, 2) {
                case.identity = vec![
                    json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sts:*", "Resource": "*"}}),
                ];
            }
        }
        "organisations" => {
            case.identity = g.generous();
            let levels = 1 + g.chance.below(2);
            case.organization = (0..levels).map(|_| g.policies(2)).collect();
        }
        _ => {
            if g.chance.in_of(1, 6) {
                case.caller = g.chance.pick(NOBODIES).into();
            }
            case.owner = g.chance.in_of(1, 2).then(|| g.chance.pick(&[ACCOUNT, OTHER]).into());
            case.identity = g.generous();
            case.boundary = g.chance.in_of(1, 3).then(|| g.policy(None));
            case.session = g.chance.in_of(1, 3).then(|| g.policies(2));
            case.resource_policy = g.chance.in_of(1, 2).then(|| g.policy(Some(false)));
            case.endpoint = g.chance.in_of(1, 3).then(|| g.policy(Some(true)));
            case.gateway = g.chance.in_of(1, 2);
            if g.chance.in_of(1, 5) {
                case.organization = vec![g.policies(1)];
            }
        }
    }
    case
}

/// A resource that the action can be about, most of the time.
fn fitting(action: &str, chance: &mut Chance) -> String {
    let service = action.split(':').next().unwrap_or("");
    let wanted = format!("arn:aws:{service}:");
    let fitting: Vec<&str> = RESOURCES
        .iter()
        .copied()
        .filter(|arn| arn.starts_with(&wanted))
        .collect();
    if chance.in_of(1, 8) {
        chance.pick(RESOURCES)
    } else {
        chance.pick(&fitting)
    }
    .into()
}

fn surroundings(case: &mut Case, chance: &mut Chance) {
    for kind in KINDS {
        for key in kind.keys {
            // A quarter is absent, and a few are there without a value.
            let values = match chance.below(8) {
                0 | 1 => continue,
                2 => Vec::new(),
                3 => chance.some(kind.given, 3),
                _ => vec![chance.pick(kind.given).to_owned()],
            };
            case.context.insert((*key).into(), values);
        }
    }
    if chance.in_of(3, 4) {
        case.context.insert("aws:PrincipalAccount".into(), vec![ACCOUNT.into()]);
    }
}

/// Writes documents that mostly speak to the case.
struct Writer<'c> {
    chance: &'c mut Chance,
    action: String,
    resource: String,
}

impl Writer<'_> {
    fn document(&mut self, statements: Vec<Value>, version: Option<&str>) -> Value {
        let version = version.unwrap_or(if self.chance.in_of(1, 8) { "" } else { "2012-10-17" });
        let mut statement = Value::Array(statements);
        if let Some([only]) = statement.as_array().map(Vec::as_slice)
            && self.chance.in_of(1, 2)
        {
            statement = only.clone();
        }
        match version {
            "" => json!({"Statement": statement}),
            version => json!({"Version": version, "Statement": statement}),
        }
    }

    /// Identity policies that allow more often than not.
    fn generous(&mut self) -> Vec<Value> {
        match self.chance.below(4) {
            0 => Vec::new(),
            1 => self.policies(2),
            _ => {
                vec![json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}})]
            }
        }
    }

    fn policies(&mut self, most: usize) -> Vec<Value> {
        let count = 1 + self.chance.below(most);
        (0..count).map(|_| self.policy(None)).collect()
    }

    /// `principals`: `None` for documents without, `Some(true)` for an endpoint's.
    fn policy(&mut self, principals: Option<bool>) -> Value {
        let count = 1 + self.chance.below(2);
        let statements = (0..count).map(|_| self.statement(principals)).collect();
        self.document(statements, None)
    }

    fn trust(&mut self) -> Value {
        let count = 1 + self.chance.below(2);
        let statements = (0..count)
            .map(|_| {
                let mut statement = Map::new();
                let deny = self.chance.in_of(1, 5);
                statement.insert("Effect".into(), if deny { "Deny" } else { "Allow" }.into());
                let principal = match self.chance.below(3) {
                    0 => json!({"Service": "sagemaker.amazonaws.com"}),
                    _ => self.principal(),
                };
                statement.insert("Principal".into(), principal);
                statement.insert(
                    "Action".into(),
                    self.chance.pick(&["sts:AssumeRole", "sts:*", "sts:TagSession"]).into(),
                );
                if self.chance.in_of(1, 3) {
                    statement.insert("Condition".into(), self.conditions("mixed"));
                }
                Value::Object(statement)
            })
            .collect();
        self.document(statements, None)
    }

    fn statement(&mut self, principals: Option<bool>) -> Value {
        let deny = self.chance.in_of(1, 4);
        let mut statement = self.about(true);
        statement.insert("Effect".into(), if deny { "Deny" } else { "Allow" }.into());
        if let Some(endpoint) = principals {
            let negated = self.chance.in_of(1, 3) && (deny || !endpoint);
            let element = if negated { "NotPrincipal" } else { "Principal" };
            statement.insert(element.into(), self.principal());
        }
        if self.chance.in_of(1, 3) {
            let conditions = self.conditions("mixed");
            statement.insert("Condition".into(), conditions);
        }
        Value::Object(statement)
    }

    /// Action and resource.
    fn about(&mut self, varied: bool) -> Map<String, Value> {
        let mut statement = Map::new();
        let mut put = |element: &str, negated: bool, values: Vec<String>| {
            let name = if negated {
                format!("Not{element}")
            } else {
                element.into()
            };
            let value = match values.as_slice() {
                [one] => one.as_str().into(),
                _ => values.into(),
            };
            statement.insert(name, value);
        };
        if !varied {
            put("Action", false, vec!["*".into()]);
            put("Resource", false, vec!["*".into()]);
            return statement;
        }
        let mut actions = self.chance.some(ACTION_PATTERNS, 2);
        if self.chance.in_of(1, 2) {
            actions.push(self.action.clone());
        }
        put("Action", self.chance.in_of(1, 5), actions);
        let mut resources = self.chance.some(RESOURCE_PATTERNS, 2);
        if self.chance.in_of(1, 2) {
            let own = self.resource.clone();
            resources.push(if own.len() > 1 { own } else { "*".into() });
        }
        put("Resource", self.chance.in_of(1, 5), resources);
        statement
    }

    fn principal(&mut self) -> Value {
        match self.chance.below(8) {
            0 => json!("*"),
            1 => json!({"AWS": "*"}),
            2 => json!({"Service": self.chance.pick(&["logs.amazonaws.com", "sagemaker.amazonaws.com"])}),
            3 => json!({"AWS": self.chance.some(PRINCIPALS, 5), "Service": "logs.amazonaws.com"}),
            4 | 5 => json!({"AWS": self.own()}),
            _ => json!({"AWS": self.chance.some(PRINCIPALS, 4)}),
        }
    }

    /// Most of the names that one principal has, so that leaving one out can be told from having all.
    fn own(&mut self) -> Vec<&'static str> {
        let [names, spare] = if self.chance.in_of(1, 2) {
            [
                &[
                    "arn:aws:sts::111122223333:assumed-role/worker/s1",
                    "arn:aws:iam::111122223333:role/worker",
                ],
                &[ACCOUNT, "arn:aws:iam::111122223333:root"],
            ]
        } else {
            [&["arn:aws:iam::111122223333:user/alice", USER_ID], &[ACCOUNT, ROLE_ID]]
        };
        let all = names.iter().chain(spare).copied();
        let mut own: Vec<&str> = all.filter(|_| self.chance.in_of(3, 4)).collect();
        if own.is_empty() {
            own.push(ACCOUNT);
        }
        own
    }

    fn conditions(&mut self, family: &str) -> Value {
        let count = if family == "mixed" { 1 } else { 1 + self.chance.below(2) };
        let mut block = Map::new();
        for _ in 0..count {
            let kind = match family {
                "arns" => &ARNS,
                "variables" => &STRINGS,
                _ => KINDS.get(self.chance.below(KINDS.len())).copied().unwrap_or(&STRINGS),
            };
            let key = self.chance.pick(kind.keys);
            if self.chance.in_of(1, 9) {
                let words = self.chance.some(&["true", "false"], 2);
                block.insert("Null".into(), json!({key: words}));
                continue;
            }
            let set = match (family, self.chance.below(4)) {
                ("sets", 0 | 1) | (_, 0) => "ForAllValues:",
                ("sets", _) | (_, 1) => "ForAnyValue:",
                _ => "",
            };
            let if_exists = if self.chance.in_of(1, 4) { "IfExists" } else { "" };
            let operator = format!("{set}{}{if_exists}", self.chance.pick(kind.operators));
            let values = self.chance.some(kind.wanted, 3);
            block.insert(operator, json!({key: values}));
        }
        Value::Object(block)
    }
}
