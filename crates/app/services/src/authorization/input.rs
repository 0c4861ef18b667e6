//! Inputs of every operation, made from its model: the least that it takes, and everything that it knows.

use indexmap::IndexMap;
use isolarium_wire::Document;
use isolarium_wire::catalog::service::{Kind, Service, ShapeId, Structure};

/// How much of an input is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Required members.
    Least,
    /// Every member.
    Full,
}

/// The name of everything that has a name.
pub(crate) const NAME: &str = "thing";
/// Deeper shapes contain themselves.
const DEEPEST: usize = 8;

pub(crate) struct Writer<'a> {
    pub(crate) service: &'a Service,
    pub(crate) extent: Extent,
    /// Texts for members by name, before anything else.
    pub(crate) texts: &'a [(&'a str, &'a str)],
    /// Members that are given in every extent.
    pub(crate) always: &'a [&'a str],
    /// Members that exclude others and are left out.
    pub(crate) without: &'a [&'a str],
}

impl Writer<'_> {
    pub(crate) fn input(&self, operation: &str) -> Document {
        let operation = self.service.operation(operation).expect("an operation of the model");
        match operation.input.and_then(|shape| self.service.structure(shape)) {
            Some(structure) => self.structure(structure, 0),
            None => Document::Map(IndexMap::new()),
        }
    }

    fn structure(&self, structure: &Structure, depth: usize) -> Document {
        let wanted = structure.members.iter().filter(|member| {
            let given = member.required
                || self.always.contains(&member.name)
                || (self.extent == Extent::Full && depth < DEEPEST);
            given && !self.without.contains(&member.name) && !self.service.beside(structure, member)
        });
        let members = wanted.map(|member| (member.name.to_owned(), self.value(member.shape, member.name, depth + 1)));
        Document::Map(members.collect())
    }

    fn value(&self, shape: ShapeId, name: &str, depth: usize) -> Document {
        match &self.service.shape(shape).kind {
            Kind::Structure(structure) => self.structure(structure, depth),
            Kind::List(_) if depth > DEEPEST => Document::List(Vec::new()),
            Kind::List(list) => Document::List(vec![self.value(list.member, name, depth + 1)]),
            Kind::Map(map) => {
                let value = self.value(map.value, name, depth + 1);
                Document::Map([("team".to_owned(), value)].into_iter().collect())
            }
            Kind::Text(text) => Document::String(self.text(name, text.values.first().copied())),
            Kind::Integer(range) | Kind::Long(range) => Document::Integer(whole(range.min)),
            Kind::Float(_) => Document::Float(1.0),
            Kind::Boolean => Document::Bool(true),
            Kind::Blob(_) => Document::Blob(b"blob".to_vec()),
            Kind::Timestamp => Document::Timestamp(0),
        }
    }

    fn text(&self, name: &str, allowed: Option<&str>) -> String {
        let hint = self.texts.iter().find(|(member, _)| *member == name);
        hint.map(|(_, text)| *text).or(allowed).unwrap_or(NAME).to_owned()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "bounds in models are whole and small")]
fn whole(least: Option<f64>) -> i64 {
    least.map_or(1, |least| least as i64).max(1)
}
