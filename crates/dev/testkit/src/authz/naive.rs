//! The naive evaluator.

use super::{Caller, Case, ROLE_ID, USER_ID};
use serde_json::Value;

/// `allow`, `explicit`, or `implicit` with the policy type that had to allow and did not.
pub fn decide(case: &Case) -> String {
    let caller = Caller::read(&case.caller);
    let say = |policies: &[&Value], names_principals: bool, gateway: bool| {
        let mut found = Found::default();
        for policy in policies {
            for statement in list(&policy["Statement"]) {
                weigh(case, &caller, policy, statement, names_principals, gateway, &mut found);
            }
        }
        found
    };
    let identity = say(&case.identity.iter().collect::<Vec<_>>(), false, false);
    let boundary = say(&case.boundary.iter().collect::<Vec<_>>(), false, false);
    let session = say(&case.session.iter().flatten().collect::<Vec<_>>(), false, false);
    let endpoint = say(&case.endpoint.iter().collect::<Vec<_>>(), true, case.gateway);
    let resource = say(&case.resource_policy.iter().collect::<Vec<_>>(), true, false);
    let levels: Vec<Found> = case
        .organization
        .iter()
        .map(|level| say(&level.iter().collect::<Vec<_>>(), false, false))
        .collect();

    if [&identity, &boundary, &session, &endpoint, &resource]
        .iter()
        .any(|found| found.denied)
        || levels.iter().any(|level| level.denied)
    {
        return "explicit".into();
    }
    if case.endpoint.is_some() && !endpoint.allows() {
        return "implicit endpoint".into();
    }
    let nobody = caller.account.is_none();
    if !nobody && levels.iter().any(|level| !level.allows()) {
        return "implicit organization".into();
    }
    let foreign = nobody
        || case
            .owner
            .as_ref()
            .is_some_and(|owner| Some(owner) != caller.account.as_ref());
    if (foreign || case.trust) && !resource.allows() {
        return if case.trust {
            "implicit trust"
        } else {
            "implicit resource"
        }
        .into();
    }
    if nobody {
        return "allow".into();
    }
    if !foreign && resource.direct {
        return "allow".into();
    }
    let excused = caller.kind == "root" || (!foreign && resource.role);
    if !identity.allows() && !excused {
        return "implicit identity".into();
    }
    if case.boundary.is_some() && !boundary.allows() {
        return "implicit boundary".into();
    }
    if case.session.is_some() && !session.allows() {
        return "implicit session".into();
    }
    "allow".into()
}

/// What the statements of one policy type add up to: who an Allow named, by strength, and whether a Deny matched.
#[derive(Default)]
struct Found {
    direct: bool,
    role: bool,
    account: bool,
    denied: bool,
}

impl Found {
    fn allows(&self) -> bool {
        self.direct || self.role || self.account
    }
}

fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn weigh(
    case: &Case,
    caller: &Caller,
    policy: &Value,
    statement: &Value,
    names_principals: bool,
    gateway: bool,
    found: &mut Found,
) {
    let deny = statement["Effect"] == "Deny";
    let how = if names_principals {
        who(case, caller, statement, deny, gateway)
    } else {
        Some("direct")
    };
    let Some(how) = how else { return };
    let variables = policy["Version"] == "2012-10-17";
    if !action(case, statement) || !resource(case, statement, deny, variables) {
        return;
    }
    match conditions(case, statement, variables) {
        Some(true) => {}
        Some(false) => return,
        // What cannot be read denies.
        None if deny => {}
        None => return,
    }
    match how {
        _ if deny => found.denied = true,
        "direct" => found.direct = true,
        "role" => found.role = true,
        _ => found.account = true,
    }
}

/// How a Principal or NotPrincipal element includes the caller.
fn who(case: &Case, caller: &Caller, statement: &Value, deny: bool, gateway: bool) -> Option<&'static str> {
    if let Some(element) = statement.get("Principal") {
        let ways: Vec<&str> = entries(element)
            .iter()
            .filter_map(|(kind, entry)| named(caller, kind, entry, deny, gateway))
            .collect();
        return ["direct", "role", "account"].into_iter().find(|way| ways.contains(way));
    }
    let listed = entries(&statement["NotPrincipal"]);
    let ways: Vec<&str> = listed
        .iter()
        .filter_map(|(kind, entry)| named(caller, kind, entry, true, false))
        .collect();
    let exempt = if !deny {
        !ways.is_empty() || caller.kind == "service"
    } else if listed.iter().any(|(kind, entry)| kind == "AWS" && entry == "*") {
        case.boundary.is_none()
    } else {
        let all = |wanted: &[&str]| wanted.iter().all(|way| ways.contains(way));
        case.boundary.is_none()
            && match caller.kind.as_str() {
                "user" => all(&["direct", "account"]),
                "session" => all(&["direct", "role", "account"]),
                "root" | "service" => all(&["direct"]),
                _ => false,
            }
    };
    (!exempt).then_some("direct")
}

fn entries(element: &Value) -> Vec<(String, String)> {
    match element {
        Value::Object(kinds) => kinds
            .iter()
            .flat_map(|(kind, names)| list(names).into_iter().map(move |name| (kind.clone(), text(name))))
            .collect(),
        other => vec![("AWS".into(), text(other))],
    }
}

fn named(caller: &Caller, kind: &str, entry: &str, deny: bool, gateway: bool) -> Option<&'static str> {
    let account = caller.account.as_deref().unwrap_or("none");
    let (name, session) = (&caller.name, &caller.session);
    if kind == "Service" {
        return (caller.kind == "service" && entry == name).then_some("direct");
    }
    if entry == "*" {
        return (caller.kind != "service" || deny).then_some("direct");
    }
    if entry == account || entry == format!("arn:aws:iam::{account}:root") {
        return match caller.kind.as_str() {
            "root" => Some("direct"),
            _ if gateway => None,
            _ => Some("account"),
        };
    }
    match caller.kind.as_str() {
        "user" if entry == format!("arn:aws:iam::{account}:user/{name}") || entry == USER_ID => Some("direct"),
        "session" if entry == format!("arn:aws:sts::{account}:assumed-role/{name}/{session}") => Some("direct"),
        "session" if entry == format!("arn:aws:iam::{account}:role/{name}") || entry == ROLE_ID => Some("role"),
        _ => None,
    }
}

fn action(case: &Case, statement: &Value) -> bool {
    let among = |element: &str| {
        list(&statement[element]).iter().any(|pattern| {
            glob(
                &symbols(&text(pattern).to_lowercase(), None),
                &exactly(&case.action.to_lowercase()),
            )
        })
    };
    if statement.get("Action").is_some() {
        among("Action")
    } else {
        !among("NotAction")
    }
}

fn resource(case: &Case, statement: &Value, deny: bool, variables: bool) -> bool {
    let mut unset = false;
    let mut among = |element: &str| {
        list(&statement[element]).iter().any(|pattern| {
            let mut pattern = text(pattern);
            let reaches = pattern.split(':').skip(3).any(|part| part.ends_with('*'));
            while pattern != "*" && !reaches && pattern.matches(':').count() < 5 {
                pattern.push_str(":*");
            }
            let Some(pattern) = replace(&pattern, case, variables, true) else {
                unset = true;
                return false;
            };
            glob(&pattern, &arn_text(&case.resource))
        })
    };
    if statement.get("NotResource").is_some() {
        !among("NotResource") && (deny || !unset)
    } else if statement.get("Resource").is_some() {
        among("Resource")
    } else {
        true
    }
}

/// A text that is matched; where the flag is set, case does not count.
type Given = Vec<(char, bool)>;

fn exactly(text: &str) -> Given {
    text.chars().map(|c| (c, false)).collect()
}

/// Names of SageMaker's resources do not count case.
fn arn_text(resource: &str) -> Given {
    let parts: Vec<&str> = resource.split(':').collect();
    let sagemaker = parts.len() >= 6 && parts.first() == Some(&"arn") && parts.get(2) == Some(&"sagemaker");
    let mut colons = 0;
    resource
        .chars()
        .map(|c| {
            let folds = sagemaker && colons >= 5;
            colons += usize::from(c == ':');
            (c, folds)
        })
        .collect()
}

/// One step of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Symbol {
    Literal(char),
    Run,
    One,
}

/// A pattern in which `*` and `?` are wildcards, or none at all.
fn symbols(pattern: &str, wildcards: Option<bool>) -> Vec<Symbol> {
    let wild = wildcards.unwrap_or(true);
    pattern
        .chars()
        .map(|c| match c {
            '*' if wild => Symbol::Run,
            '?' if wild => Symbol::One,
            other => Symbol::Literal(other),
        })
        .collect()
}

fn glob(pattern: &[Symbol], given: &[(char, bool)]) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return given.is_empty();
    };
    let next = given.split_first();
    match (first, next) {
        (Symbol::Run, None) => glob(rest, given),
        (Symbol::Run, Some((_, after))) => glob(rest, given) || glob(pattern, after),
        (Symbol::One, Some((_, after))) => glob(rest, after),
        (Symbol::Literal(wanted), Some(((found, folds), after))) => {
            let same = wanted == found || (*folds && wanted.eq_ignore_ascii_case(found));
            same && glob(rest, after)
        }
        _ => false,
    }
}

/// Puts values in the place of variables; `None` when one has none.
fn replace(pattern: &str, case: &Case, variables: bool, wildcards: bool) -> Option<Vec<Symbol>> {
    let mut found = Vec::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if variables && rest.starts_with("${") {
            let inside = rest.get(2..)?.split('}').next()?;
            rest = rest.get(inside.len() + 3..)?;
            if matches!(inside, "*" | "?" | "$") {
                found.extend(symbols(inside, Some(false)));
                continue;
            }
            let (key, default) = match inside.split_once(',') {
                Some((key, default)) => (key, Some(default.trim().trim_matches('\''))),
                None => (inside, None),
            };
            let value = match values(case, key.trim()).as_slice() {
                [] => default?.to_owned(),
                [one] => one.clone(),
                _ => return None,
            };
            found.extend(symbols(&value, Some(false)));
        } else {
            found.extend(symbols(&c.to_string(), Some(wildcards)));
            rest = rest.get(c.len_utf8()..)?;
        }
    }
    Some(found)
}

fn values(case: &Case, key: &str) -> Vec<String> {
    case.context
        .iter()
        .find(|(name, _)| name.to_lowercase() == key.to_lowercase())
        .map(|(_, values)| values.clone())
        .unwrap_or_default()
}

/// Whether all conditions hold; `None` when none fails and one cannot be read.
fn conditions(case: &Case, statement: &Value, variables: bool) -> Option<bool> {
    let mut unreadable = false;
    for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
        for (key, wanted) in keys.as_object().into_iter().flatten() {
            let wanted: Vec<String> = list(wanted).into_iter().map(text).collect();
            match condition(case, operator, &values(case, key), &wanted, variables) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => unreadable = true,
            }
        }
    }
    if unreadable { None } else { Some(true) }
}

fn condition(case: &Case, operator: &str, given: &[String], wanted: &[String], variables: bool) -> Option<bool> {
    if operator == "Null" {
        let absent = given.is_empty().to_string();
        return Some(wanted.iter().any(|word| word.to_lowercase() == absent));
    }
    let (set, operator) = operator.split_once(':').unwrap_or(("", operator));
    let plain = operator.replace("IfExists", "");
    let negative = plain.contains("Not");
    if given.is_empty() {
        return Some(operator.contains("IfExists") || set == "ForAllValues" || (set.is_empty() && negative));
    }
    let positive = plain.replace("Not", "");
    let mut hits = Vec::new();
    for value in given {
        let mut any = false;
        for candidate in wanted {
            any |= compare(case, &positive, value, candidate, variables)?;
        }
        hits.push(any != negative);
    }
    Some(match set {
        "ForAllValues" => hits.iter().all(|hit| *hit),
        "ForAnyValue" => hits.iter().any(|hit| *hit),
        _ if negative => hits.iter().all(|hit| *hit),
        _ => hits.iter().any(|hit| *hit),
    })
}

/// Whether one value of the request is one value of the policy; `None` when the request's is not of the operator's type.
fn compare(case: &Case, operator: &str, given: &str, wanted: &str, variables: bool) -> Option<bool> {
    let with = |wildcards| replace(wanted, case, variables, wildcards);
    match operator {
        "StringEquals" => Some(with(false).is_some_and(|wanted| glob(&wanted, &exactly(given)))),
        "StringEqualsIgnoreCase" => {
            let lowered = with(false).map(|wanted| {
                wanted
                    .into_iter()
                    .map(|symbol| match symbol {
                        Symbol::Literal(c) => c.to_lowercase().to_string(),
                        _ => String::new(),
                    })
                    .collect::<String>()
            });
            Some(lowered == Some(given.to_lowercase()))
        }
        "StringLike" => Some(with(true).is_some_and(|wanted| glob(&wanted, &exactly(given)))),
        "ArnEquals" | "ArnLike" => Some(arn(case, given, wanted, variables)),
        "Bool" => word(given).map(|given| Some(given) == word(wanted)),
        "BinaryEquals" => binary(given).map(|given| Some(given) == binary(wanted)),
        "IpAddress" => {
            let given: std::net::IpAddr = given.parse().ok()?;
            Some(within(&given.to_string(), wanted))
        }
        _ => {
            let (kind, order) = match operator.strip_prefix("Numeric") {
                Some(order) => ("number", order),
                None => ("date", operator.strip_prefix("Date")?),
            };
            let read = |text: &str| if kind == "number" { number(text) } else { date(text) };
            let (given, wanted) = (read(given)?, read(wanted)?);
            Some(match order {
                "Equals" => given == wanted,
                "LessThan" => given < wanted,
                "LessThanEquals" => given <= wanted,
                "GreaterThan" => given > wanted,
                "GreaterThanEquals" => given >= wanted,
                _ => return None,
            })
        }
    }
}

fn word(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Base64 with padding, by its text: equal bytes have equal texts.
fn binary(text: &str) -> Option<&str> {
    let body = text.trim_end_matches('=');
    let good = text.len().is_multiple_of(4) && body.chars().all(|c| c.is_ascii_alphanumeric() || c == '+' || c == '/');
    good.then_some(text)
}

fn number(text: &str) -> Option<f64> {
    let good = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    if good { text.parse().ok() } else { None }
}

/// Seconds since the epoch.
fn date(text: &str) -> Option<f64> {
    if text.len() > 4 && text.parse::<i64>().is_ok() {
        return text.parse().ok();
    }
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let part = |nth: usize, default: i64| match day.split('-').nth(nth) {
        Some(digits) => digits.parse::<i64>().ok(),
        None => Some(default),
    };
    let (year, month, dom) = (part(0, 0)?, part(1, 1)?, part(2, 1)?);
    let good = day.split('-').next()?.len() == 4 && (1..=12).contains(&month) && (1..=31).contains(&dom);
    if !good {
        return None;
    }
    // Day by day from 1970: slow and plain.
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut days: i64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let lengths = [
        31,
        if leap(year) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    days += lengths.iter().zip(1..month).map(|(length, _)| length).sum::<i64>() + dom - 1;
    let (clock, offset) = match time.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => {
            let at = time.rfind(['+', '-'])?;
            let (clock, zone) = time.split_at(at);
            let minutes = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(4..6)?.parse::<i64>().ok()?;
            (clock, if zone.starts_with('-') { -minutes } else { minutes })
        }
    };
    let mut unit = clock.split(':').map(|digits| digits.parse::<i64>().ok());
    let (hour, minute, second) = (unit.next()??, unit.next()??, unit.next()??);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset * 60;
    seconds.to_string().parse().ok()
}

fn bits(address: &str) -> Option<String> {
    if let Ok(four) = address.parse::<std::net::Ipv4Addr>() {
        return Some(four.octets().iter().map(|octet| format!("{octet:08b}")).collect());
    }
    let six: std::net::Ipv6Addr = address.parse().ok()?;
    Some(six.octets().iter().map(|octet| format!("{octet:08b}")).collect())
}

/// Whether the first bits of the address are those of the network.
fn within(address: &str, net: &str) -> bool {
    let (base, length) = net.split_once('/').unwrap_or((net, "all"));
    let (Some(address), Some(base)) = (bits(address), bits(base)) else {
        return false;
    };
    let length = length.parse::<usize>().unwrap_or(base.len());
    address.len() == base.len() && address.get(..length) == base.get(..length)
}

/// Six parts, one by one.
fn arn(case: &Case, given: &str, wanted: &str, variables: bool) -> bool {
    let given: Vec<&str> = given.splitn(6, ':').collect();
    let wanted = split(wanted, variables);
    let sagemaker = given.len() == 6 && given.first() == Some(&"arn") && given.get(2) == Some(&"sagemaker");
    let mut good = given.len() == 6 && wanted.len() == 6;
    for (at, (given, wanted)) in given.iter().zip(&wanted).enumerate() {
        let Some(pattern) = replace(wanted, case, variables, true) else {
            return false;
        };
        let text: Given = given.chars().map(|c| (c, sagemaker && at == 5)).collect();
        good &= glob(&pattern, &text);
    }
    good
}

/// At colons outside of variables, into six parts at most.
fn split(pattern: &str, variables: bool) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut inside = false;
    let mut before = ' ';
    for c in pattern.chars() {
        inside = (inside || (variables && before == '$' && c == '{')) && c != '}';
        before = c;
        if c == ':' && !inside && parts.len() < 6 {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}
