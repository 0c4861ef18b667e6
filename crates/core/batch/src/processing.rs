//! DataProcessing: the input filter before the request, the join with the input, the output filter last (CC-77..79).

use crate::csv;
use crate::path::{BadPath, JsonPath};
use crate::split::Unreadable;
use isolarium_model::sagemaker::transform_job::{AssembleWith, DataProcessing, SplitType};
use serde_json::{Map, Value};

/// Under this name results stand in joined objects (CC-79).
const OUTPUT: &str = "SageMakerOutput";
/// Under this name stands an input that is no object.
const INPUT: &str = "SageMakerInput";

/// A combination that cannot be processed; the text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{member} {cause}")]
    Path { member: &'static str, cause: BadPath },
    #[error("{member} of CSV data may hold indexes alone: each row is an array.")]
    Rows { member: &'static str },
    #[error(
        "DataProcessing needs {member} to be text/csv, application/json or application/jsonlines, but it is \"{given}\"."
    )]
    Format { member: &'static str, given: String },
    #[error("To join results with their input, Accept must be the same as ContentType.")]
    Accept,
    #[error("To join results with their input, AssembleWith must be the same as SplitType.")]
    Assembly,
    #[error("DataProcessing needs SplitType None or Line.")]
    Split,
}

/// The form of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    /// One document.
    Json,
    /// A document per line.
    JsonLines,
}

impl Format {
    fn of(member: &'static str, given: Option<&str>) -> Result<Self, Refused> {
        let given = given.unwrap_or_default();
        let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "text/csv" => Ok(Self::Csv),
            "application/json" => Ok(Self::Json),
            "application/jsonlines" => Ok(Self::JsonLines),
            _ => Err(Refused::Format {
                member,
                given: given.into(),
            }),
        }
    }
}

/// What is done to records and results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processing {
    input_filter: JsonPath,
    output_filter: JsonPath,
    join: bool,
    /// Of the records.
    input: Format,
    /// Of the results.
    output: Format,
    /// Records and results are lines, also those of JSON.
    lines: bool,
}

fn path(member: &'static str, text: &str) -> Result<JsonPath, Refused> {
    text.parse().map_err(|cause| Refused::Path { member, cause })
}

impl Processing {
    /// What a job asks for; `None` where it asks for nothing, and data of any kind passes as it is.
    ///
    /// # Errors
    /// When the parts do not go together; creation refuses them.
    pub fn new(
        asked: &DataProcessing,
        content_type: Option<&str>,
        accept: Option<&str>,
        split: SplitType,
        assemble: AssembleWith,
    ) -> Result<Option<Self>, Refused> {
        let input_filter = path("InputFilter", &asked.input_filter)?;
        let output_filter = path("OutputFilter", &asked.output_filter)?;
        if input_filter.is_root() && output_filter.is_root() && !asked.join {
            return Ok(None);
        }
        let lines = match split {
            SplitType::Line => true,
            SplitType::None => false,
            SplitType::RecordIo | SplitType::TfRecord => return Err(Refused::Split),
        };
        // A caller who says nothing of Accept wants what the data is.
        let accept = accept.or(content_type);
        let output = if output_filter.is_root() && !asked.join {
            Format::JsonLines
        } else {
            Format::of("Accept", accept)?
        };
        let input = if input_filter.is_root() && !asked.join {
            output
        } else {
            Format::of("ContentType", content_type)?
        };
        if asked.join && input != output {
            return Err(Refused::Accept);
        }
        let assembled = match assemble {
            AssembleWith::None => SplitType::None,
            AssembleWith::Line => SplitType::Line,
        };
        if asked.join && assembled != split {
            return Err(Refused::Assembly);
        }
        for (member, filter, format) in [
            ("InputFilter", &input_filter, input),
            ("OutputFilter", &output_filter, output),
        ] {
            if format == Format::Csv && !filter.is_for_rows() {
                return Err(Refused::Rows { member });
            }
        }
        Ok(Some(Self {
            input_filter,
            output_filter,
            join: asked.join,
            input,
            output,
            lines,
        }))
    }

    /// Whether results need their input.
    pub fn joins(&self) -> bool {
        self.join
    }

    /// What of a record is sent; `None` for an empty line, which is no row.
    ///
    /// # Errors
    /// When the record is not of its kind, or the filter asks for what it does not have.
    pub fn input(&self, record: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        let empty = record.iter().all(u8::is_ascii_whitespace);
        if self.input_filter.is_root() {
            return Ok((!(empty && self.lines)).then(|| record.to_vec()));
        }
        let text = text(record)?;
        let units = self.units(self.input, text);
        if units.is_empty() {
            return Ok(None);
        }
        let filtered = units
            .into_iter()
            .map(|unit| filter(&self.input_filter, self.input, unit));
        Ok(Some(filtered.collect::<Result<Vec<_>, _>>()?.join("\n").into_bytes()))
    }

    /// What of a request's result is stored. `input` are the records of the request as the object has them.
    ///
    /// # Errors
    /// When the result is not of its kind or has not as many rows as the request, or the filter asks for what the result
    /// does not have.
    pub fn output(&self, input: &[u8], result: &[u8]) -> Result<Vec<u8>, Unreadable> {
        if !self.join && self.output_filter.is_root() {
            return Ok(result.to_vec());
        }
        let result_text = text(result)?;
        if !self.join {
            let units = self.units(self.output, result_text).into_iter();
            let filtered = units.map(|unit| filter(&self.output_filter, self.output, unit));
            let mut all = filtered.collect::<Result<Vec<_>, _>>()?.join("\n");
            // A result that ended its last line goes on doing so.
            if result_text.ends_with('\n') && self.output != Format::Json {
                all.push('\n');
            }
            return Ok(all.into_bytes());
        }
        let records = self.units(self.input, text(input)?);
        let mut results = self.units(self.output, result_text);
        if let ([_], true) = (records.as_slice(), self.output != Format::Csv) {
            // One record's document may be written over several lines.
            results = vec![result_text];
        }
        if records.len() != results.len() {
            return Err(Unreadable::Record(format!(
                "the result has {} records, the request had {}: they cannot be joined",
                results.len(),
                records.len()
            )));
        }
        let pairs = records.into_iter().zip(results);
        let joined = pairs.map(|(record, result)| self.joined(record, result));
        Ok(joined.collect::<Result<Vec<_>, _>>()?.join("\n").into_bytes())
    }

    /// Rows or documents.
    fn units<'a>(&self, format: Format, text: &'a str) -> Vec<&'a str> {
        if format == Format::Json && !self.lines {
            return vec![text];
        }
        text.lines().filter(|line| !line.trim().is_empty()).collect()
    }

    fn joined(&self, record: &str, result: &str) -> Result<String, Unreadable> {
        if self.input == Format::Csv {
            let mut row = csv::fields(record)?;
            row.extend(csv::fields(result)?);
            return columns(&self.output_filter, &row);
        }
        let result = document(result)?;
        let joined = match document(record)? {
            Value::Object(mut members) => {
                members.insert(OUTPUT.into(), result);
                members
            }
            other => Map::from_iter([(INPUT.to_string(), other), (OUTPUT.to_string(), result)]),
        };
        selected(&self.output_filter, Value::Object(joined))
    }
}

fn text(bytes: &[u8]) -> Result<&str, Unreadable> {
    std::str::from_utf8(bytes).map_err(|_| Unreadable::Record("filters and joins need UTF-8".into()))
}

fn document(text: &str) -> Result<Value, Unreadable> {
    serde_json::from_str(text).map_err(|error| Unreadable::Record(format!("a record is no JSON: {error}")))
}

fn filter(path: &JsonPath, format: Format, unit: &str) -> Result<String, Unreadable> {
    match format {
        Format::Csv => columns(path, &csv::fields(unit)?),
        Format::Json | Format::JsonLines => selected(path, document(unit)?),
    }
}

fn columns(path: &JsonPath, row: &[&str]) -> Result<String, Unreadable> {
    let places = path
        .columns(row.len())
        .map_err(|absent| Unreadable::Record(absent.to_string()))?;
    let picked: Vec<&str> = places.into_iter().filter_map(|at| row.get(at).copied()).collect();
    Ok(picked.join(","))
}

fn selected(path: &JsonPath, document: Value) -> Result<String, Unreadable> {
    let part = path
        .select(document)
        .map_err(|absent| Unreadable::Record(absent.to_string()))?;
    Ok(part.to_string())
}

#[cfg(test)]
mod tests;
