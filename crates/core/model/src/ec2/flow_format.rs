//! The fields of flow log records and the formats made of them (NET-56, NET-57).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

macro_rules! fields {
    ($($field:ident $name:literal $version:literal;)+) => {
        /// One field of a flow log record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Field { $(
            #[doc = concat!("`", $name, "`, version ", stringify!($version), ".")]
            $field,
        )+ }

        impl Field {
            /// Every field, in the order of AWS's table.
            pub const ALL: &'static [Self] = &[$(Self::$field,)+];

            /// The name in formats and header lines.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$field => $name,)+ }
            }

            /// The version of flow logs that introduced it: 2 to 5.
            pub const fn version(self) -> u8 {
                match self { $(Self::$field => $version,)+ }
            }
        }
    };
}

fields! {
    Version "version" 2;
    AccountId "account-id" 2;
    InterfaceId "interface-id" 2;
    SourceAddress "srcaddr" 2;
    DestinationAddress "dstaddr" 2;
    SourcePort "srcport" 2;
    DestinationPort "dstport" 2;
    Protocol "protocol" 2;
    Packets "packets" 2;
    Bytes "bytes" 2;
    Start "start" 2;
    End "end" 2;
    Action "action" 2;
    LogStatus "log-status" 2;
    VpcId "vpc-id" 3;
    SubnetId "subnet-id" 3;
    InstanceId "instance-id" 3;
    TcpFlags "tcp-flags" 3;
    Type "type" 3;
    PacketSource "pkt-srcaddr" 3;
    PacketDestination "pkt-dstaddr" 3;
    Region "region" 4;
    ZoneId "az-id" 4;
    SublocationType "sublocation-type" 4;
    SublocationId "sublocation-id" 4;
    PacketSourceService "pkt-src-aws-service" 5;
    PacketDestinationService "pkt-dst-aws-service" 5;
    Direction "flow-direction" 5;
    TrafficPath "traffic-path" 5;
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which fields a record has, in which order; fixed when the flow log is made. Never empty, no field twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Field>);

/// The text is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFormat {
    /// A word is not `${name}`, or the name is no field's.
    #[error("unknown field {0}")]
    Unknown(String),
    /// A field stands twice.
    #[error("the field {0} stands twice")]
    Twice(Field),
    /// There is no field.
    #[error("there is no field")]
    Empty,
}

impl FromStr for Format {
    type Err = BadFormat;

    /// Reads `${version} ${account-id} ...`, separated by spaces.
    fn from_str(text: &str) -> Result<Self, BadFormat> {
        let mut fields = Vec::new();
        let mut seen = BTreeSet::new();
        for word in text.split_ascii_whitespace() {
            let name = word.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            let field = Field::ALL.iter().copied().find(|field| Some(field.name()) == name);
            let field = field.ok_or_else(|| BadFormat::Unknown(word.to_owned()))?;
            if !seen.insert(field) {
                return Err(BadFormat::Twice(field));
            }
            fields.push(field);
        }
        if fields.is_empty() {
            return Err(BadFormat::Empty);
        }
        Ok(Self(fields))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, field) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}${{{}}}", field.name())?;
        }
        Ok(())
    }
}

impl Default for Format {
    /// The default format: every field of version 2.
    fn default() -> Self {
        Self(
            Field::ALL
                .iter()
                .copied()
                .filter(|field| field.version() == 2)
                .collect(),
        )
    }
}

impl Format {
    /// The fields in order.
    pub fn fields(&self) -> &[Field] {
        &self.0
    }

    /// What the field `version` says: the highest among the chosen fields.
    pub fn version(&self) -> u8 {
        self.0.iter().map(|field| field.version()).max().unwrap_or(2)
    }

    /// The header line of files in S3: names separated by spaces.
    pub fn header(&self) -> String {
        self.0.iter().map(|field| field.name()).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: NET-56, NET-57
    #[test]
    fn a_format_names_known_fields_once_and_its_version_is_the_highest_of_them() {
        let default = "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} \
                       ${packets} ${bytes} ${start} ${end} ${action} ${log-status}";
        assert_eq!(Format::default().to_string(), default);
        assert_eq!(default.parse::<Format>().unwrap(), Format::default());
        assert_eq!(Format::default().version(), 2);
        for (text, version) in [
            ("${srcaddr}", 2),
            ("${srcaddr} ${vpc-id}", 3),
            ("${region}", 4),
            ("${version} ${traffic-path}", 5),
        ] {
            let format: Format = text.parse().unwrap();
            assert_eq!((format.version(), format.to_string().as_str()), (version, text));
        }
        assert_eq!(
            "${pkt-srcaddr}  ${bytes}".parse::<Format>().unwrap().header(),
            "pkt-srcaddr bytes"
        );
        assert_eq!("".parse::<Format>(), Err(BadFormat::Empty));
        for unknown in ["version", "${colour}", "${version", "${version},${bytes}"] {
            assert_eq!(unknown.parse::<Format>(), Err(BadFormat::Unknown(unknown.into())));
        }
        assert_eq!(
            "${bytes} ${bytes}".parse::<Format>(),
            Err(BadFormat::Twice(Field::Bytes))
        );
    }
}
