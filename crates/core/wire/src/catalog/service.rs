//! A service's model in memory: flat tables, names shared, patterns compiled at their first use.

use super::pattern::Pattern;
use crate::protocol::Protocol;

/// Index of a shape in its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeId(pub(super) u32);

/// One service: operations and shapes.
#[derive(Debug, Default)]
pub struct Service {
    pub(super) name: &'static str,
    pub(super) api_version: &'static str,
    pub(super) xml_namespace: &'static str,
    pub(super) query_compatible: bool,
    /// Sorted by name.
    pub(super) operations: Vec<Operation>,
    pub(super) shapes: Vec<Shape>,
    /// Error shapes by shape name and by query code.
    pub(super) errors: Vec<ErrorShape>,
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    pub name: &'static str,
    pub input: Option<ShapeId>,
    pub output: Option<ShapeId>,
    /// The element around the members of a query answer.
    pub result_wrapper: Option<&'static str>,
    /// Method and URI template (REST protocols).
    pub method: &'static str,
    pub uri: &'static str,
    /// HTTP status of a success, usually 200.
    pub status: u16,
}

/// A modelled error.
#[derive(Debug)]
pub struct ErrorShape {
    /// The shape's name: `__type` of JSON and CBOR.
    pub name: &'static str,
    /// The code of query protocols where it differs.
    pub query_code: Option<&'static str>,
    pub status: Option<u16>,
    pub shape: ShapeId,
}

/// A named shape.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub kind: Kind,
    /// Values are not repeated in messages.
    pub sensitive: bool,
}

/// What a shape is, with its constraints.
#[derive(Debug)]
pub enum Kind {
    Structure(Box<Structure>),
    List(Box<List>),
    Map(Box<Map>),
    Text(Box<Text>),
    Integer(Range),
    Long(Range),
    Float(Range),
    Boolean,
    Blob(Range),
    Timestamp,
}

/// Inclusive bounds of a length or value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range {
    pub min: Option<f64>,
    pub max: Option<f64>,
}

#[derive(Debug)]
pub struct Structure {
    pub members: Vec<Member>,
    /// The member that is the whole HTTP body.
    pub payload: Option<&'static str>,
    pub event_stream: bool,
}

#[derive(Debug)]
pub struct Member {
    pub name: &'static str,
    /// `locationName`, where it differs from the name.
    pub location_name: Option<&'static str>,
    /// `queryName` of EC2 requests.
    pub query_name: Option<&'static str>,
    pub location: Location,
    pub shape: ShapeId,
    pub required: bool,
    /// The body of an event in an event stream.
    pub event_payload: bool,
}

/// Where a member travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    Body,
    Uri,
    Query,
    Header,
    /// Every header with the prefix.
    Headers,
    StatusCode,
}

#[derive(Debug)]
pub struct List {
    pub member: ShapeId,
    pub member_name: Option<&'static str>,
    pub flattened: bool,
    pub size: Range,
}

#[derive(Debug)]
pub struct Map {
    pub key: ShapeId,
    pub value: ShapeId,
    pub key_name: Option<&'static str>,
    pub value_name: Option<&'static str>,
    pub flattened: bool,
    pub size: Range,
}

#[derive(Debug)]
pub struct Text {
    pub length: Range,
    pub pattern: Option<Pattern>,
    /// Allowed values; empty when there is no enum.
    pub values: Box<[&'static str]>,
}

impl Member {
    /// The name on the wire of JSON, CBOR and XML bodies.
    pub fn wire_name(&self) -> &'static str {
        self.location_name.unwrap_or(self.name)
    }
}

impl Structure {
    /// The member called `name`.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// What an id gives that is of another service; ids never leave their service, so nobody sees it.
static NOTHING: Shape = Shape {
    name: "",
    kind: Kind::Timestamp,
    sensitive: false,
};

impl Service {
    /// The name in `models/`, such as `sagemaker-runtime`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The API's date, such as `2017-07-24`.
    pub fn api_version(&self) -> &'static str {
        self.api_version
    }

    /// The namespace of query answers.
    pub fn xml_namespace(&self) -> &'static str {
        self.xml_namespace
    }

    /// Whether JSON and CBOR errors also name their query code (`awsQueryCompatible`).
    pub fn query_compatible(&self) -> bool {
        self.query_compatible
    }

    /// Every operation, sorted by name.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operation called `name`.
    pub fn operation(&self, name: &str) -> Option<&Operation> {
        self.operations
            .binary_search_by_key(&name, |operation| operation.name)
            .ok()
            .and_then(|at| self.operations.get(at))
    }

    /// Every shape.
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// The shape behind an id of this service.
    pub fn shape(&self, id: ShapeId) -> &Shape {
        usize::try_from(id.0)
            .ok()
            .and_then(|at| self.shapes.get(at))
            .unwrap_or(&NOTHING)
    }

    /// The structure behind an id, if it is one.
    pub fn structure(&self, id: ShapeId) -> Option<&Structure> {
        match &self.shape(id).kind {
            Kind::Structure(structure) => Some(structure),
            _ => None,
        }
    }

    /// The modelled error with this shape name or query code.
    pub fn error(&self, code: &str) -> Option<&ErrorShape> {
        let named = self.errors.iter().find(|error| error.name == code);
        named.or_else(|| self.errors.iter().find(|error| error.query_code == Some(code)))
    }

    /// The code of a request that breaks the model's constraints.
    pub fn validation_code(&self, protocol: Protocol) -> &'static str {
        match (self.name, protocol) {
            ("logs" | "ecr", _) => "InvalidParameterException",
            ("sagemaker-runtime" | "sagemaker-featurestore-runtime", _) | (_, Protocol::Query) => "ValidationError",
            (_, Protocol::Ec2) => "InvalidParameterValue",
            _ => "ValidationException",
        }
    }

    /// The member that is the HTTP body of requests, when it is a blob: it travels beside the decoded request.
    pub fn streams_input(&self, operation: &Operation) -> bool {
        operation.input.is_some_and(|id| self.streams(id))
    }

    /// Whether the HTTP body of answers travels beside the encoded outcome: a payload blob or an event stream.
    pub fn streams_output(&self, operation: &Operation) -> bool {
        operation.output.is_some_and(|id| self.streams(id))
    }

    fn streams(&self, id: ShapeId) -> bool {
        let Some(structure) = self.structure(id) else {
            return false;
        };
        structure.members.iter().any(|member| self.beside(structure, member))
    }

    /// Whether this member travels beside the document.
    pub fn beside(&self, structure: &Structure, member: &Member) -> bool {
        match &self.shape(member.shape).kind {
            Kind::Blob(_) => structure.payload == Some(member.name),
            Kind::Structure(inner) => inner.event_stream,
            _ => false,
        }
    }
}
