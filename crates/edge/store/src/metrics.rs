//! Metrics in SQLite. Values are folded into statistics of a second or a minute when they come in, and into coarser ones
//! when they get old, so that a series has a bounded size however long it lives.

use crate::database::{Database, Schema};
use crate::state::StoreError;
use isolarium_model::metrics::{MetricKey, Sample, StatisticSet};
use isolarium_model::{Scope, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tables of the metrics; pass it to [`Database::open`]. `step` is the length in milliseconds of what a point stands for.
pub const SCHEMA: Schema = Schema {
    module: "metrics",
    steps: &[
        "
    CREATE TABLE metrics_series (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL, region TEXT NOT NULL,
        namespace TEXT NOT NULL, name TEXT NOT NULL, dimensions TEXT NOT NULL,
        last INTEGER NOT NULL,
        UNIQUE (account, region, namespace, name, dimensions)
    );
    CREATE TABLE metrics_point (
        series INTEGER NOT NULL REFERENCES metrics_series (id) ON DELETE CASCADE,
        at INTEGER NOT NULL, step INTEGER NOT NULL, unit TEXT NOT NULL,
        count REAL NOT NULL, sum REAL NOT NULL, min REAL NOT NULL, max REAL NOT NULL,
        PRIMARY KEY (series, at, step, unit)
    ) WITHOUT ROWID;
    CREATE INDEX metrics_point_by_age ON metrics_point (step, at);
    ",
        "
    CREATE INDEX metrics_series_by_last ON metrics_series (last);
    CREATE INDEX metrics_series_of_account ON metrics_series (account, region);
    ",
    ],
};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// How long points of a step are kept, and what they are folded into then: CloudWatch's retention.
const AGES: [(i64, i64, i64); 3] = [
    (SECOND, 3 * HOUR, MINUTE),
    (MINUTE, 15 * DAY, 5 * MINUTE),
    (5 * MINUTE, 63 * DAY, HOUR),
];
/// Age at which points of an hour go.
const OLDEST: i64 = 455 * DAY;
/// Rows that one transaction folds or removes at most: the commits of all others wait for it.
const ROUND: usize = 5000;
/// A series without a value for this long is not listed.
const LISTED: i64 = 14 * DAY;

/// Statistics of one period of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The period's begin.
    pub at: Timestamp,
    pub unit: String,
    pub statistics: StatisticSet,
}

/// What to read of a series.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The first period begins here.
    pub from: Timestamp,
    /// Points before this time.
    pub to: Timestamp,
    /// Milliseconds.
    pub period: i64,
    /// Of this unit alone.
    pub unit: Option<&'a str>,
}

/// How much of a series to read at most.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Periods with values, units apart.
    pub points: usize,
    /// Stored points, which periods are made of.
    pub read: usize,
}

/// Which series to list.
#[derive(Clone, Debug, Default)]
pub struct SeriesQuery {
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// Dimensions that a series must have, with any value or this one.
    pub dimensions: Vec<(String, Option<String>)>,
    /// With a value since then.
    pub since: Option<Timestamp>,
    /// Where the last page ended.
    pub after: i64,
    pub limit: usize,
}

/// The metrics of a data directory.
pub struct Metrics {
    database: Arc<Database>,
}

const ADD: &str = "INSERT INTO metrics_point (series, at, step, unit, count, sum, min, max) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (series, at, step, unit) DO UPDATE SET \
    count = count + excluded.count, sum = sum + excluded.sum, min = min(min, excluded.min), max = max(max, excluded.max)";

const LIST: &str = "SELECT id, namespace, name, dimensions FROM metrics_series WHERE account = ?1 AND region = ?2 \
    AND id > ?3 AND last >= ?4 AND (?5 IS NULL OR namespace = ?5) AND (?6 IS NULL OR name = ?6) ORDER BY id";

impl Metrics {
    /// Serves the metrics of a database that was opened with [`SCHEMA`].
    pub fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Adds samples to their series, all or none. Durable when it returns.
    ///
    /// # Errors
    /// When the database fails.
    pub fn put(&self, scope: &Scope, samples: Vec<Sample>) -> Result<(), StoreError> {
        let scope = scope.clone();
        self.database.write(move |c| {
            for sample in &samples {
                let step = if sample.fine { SECOND } else { MINUTE };
                let series = series_of(c, &scope, &sample.key, sample.at)?;
                let StatisticSet { count, sum, min, max } = sample.statistics;
                let at = floor(sample.at.0, step);
                c.prepare_cached(ADD)?
                    .execute(params![series, at, step, sample.unit, count, sum, min, max])?;
            }
            Ok(())
        })
    }

    /// Statistics per period and unit, oldest first; periods without values are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub fn read(&self, scope: &Scope, key: &MetricKey, span: Span<'_>) -> Result<Vec<Point>, StoreError> {
        let all = Most {
            points: usize::MAX,
            read: usize::MAX,
        };
        Ok(self.read_within(scope, key, span, all)?.0)
    }

    /// As [`Self::read`], and how many stored points were read for it.
    ///
    /// # Errors
    /// [`StoreError::TooMany`] when there is more than `most`, before it is gathered. When the database fails.
    pub fn read_within(
        &self,
        scope: &Scope,
        key: &MetricKey,
        span: Span<'_>,
        most: Most,
    ) -> Result<(Vec<Point>, usize), StoreError> {
        let dimensions = text(key)?;
        self.database.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT (at - ?6) / ?8 AS bucket, unit, sum(count), sum(sum), min(min), max(max), count(*) FROM \
                 (SELECT at, unit, count, sum, min, max FROM metrics_point \
                 WHERE series = (SELECT id FROM metrics_series WHERE account = ?1 AND region = ?2 AND namespace = ?3 \
                 AND name = ?4 AND dimensions = ?5) AND at >= ?6 AND at < ?7 AND (?9 IS NULL OR unit = ?9) LIMIT ?10) \
                 GROUP BY bucket, unit ORDER BY bucket, unit",
            )?;
            let period = span.period.max(1);
            let values = params![
                scope.account.as_str(),
                scope.region.as_str(),
                key.namespace,
                key.name,
                dimensions,
                span.from.0,
                span.to.0,
                period,
                span.unit,
                // One more than may be read tells that there is more.
                i64::try_from(most.read).unwrap_or(i64::MAX).saturating_add(1)
            ];
            let mut rows = statement.query(values)?;
            let (mut found, mut read) = (Vec::new(), 0_usize);
            while let Some(row) = rows.next()? {
                let (bucket, points): (i64, i64) = (row.get(0)?, row.get(6)?);
                read = read.saturating_add(usize::try_from(points).unwrap_or(usize::MAX));
                if found.len() >= most.points || read > most.read {
                    return Err(StoreError::TooMany);
                }
                found.push(Point {
                    at: Timestamp(span.from.0.saturating_add(bucket.saturating_mul(period))),
                    unit: row.get(1)?,
                    statistics: statistics(row, 2)?,
                });
            }
            Ok((found, read))
        })
    }

    /// Series that had a value in the last two weeks, and where the next page begins if there is more.
    ///
    /// # Errors
    /// When the database fails.
    pub fn list(
        &self,
        scope: &Scope,
        query: &SeriesQuery,
        now: Timestamp,
    ) -> Result<(Vec<MetricKey>, Option<i64>), StoreError> {
        let since = now.0.saturating_sub(LISTED);
        let since = query.since.map_or(since, |wanted| wanted.0.max(since));
        self.database.read(|c| {
            let mut statement = c.prepare_cached(LIST)?;
            let mut rows = statement.query(params![
                scope.account.as_str(),
                scope.region.as_str(),
                query.after,
                since,
                query.namespace,
                query.name
            ])?;
            let (mut found, mut last) = (Vec::new(), query.after);
            while let Some(row) = rows.next()? {
                let key = key_of(row)?;
                let has = |(name, value): &(String, Option<String>)| {
                    let own = key.dimensions.get(name);
                    own.is_some_and(|own| value.as_ref().is_none_or(|value| value == own))
                };
                if !query.dimensions.iter().all(has) {
                    continue;
                }
                if found.len() >= query.limit {
                    return Ok((found, Some(last)));
                }
                last = row.get(0)?;
                found.push(key);
            }
            Ok((found, None))
        })
    }

    /// Folds old points into coarser ones and removes the oldest, in short transactions; returns how many points went. What a
    /// crash leaves is folded next time: folding adds up, in whatever portions.
    ///
    /// # Errors
    /// When the database fails.
    pub fn prune(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut gone = 0_usize;
        let oldest = now.0.saturating_sub(OLDEST);
        let folds = AGES.map(|(step, age, into)| (step, floor(now.0.saturating_sub(age), into), Some(into)));
        // Finer points are folded by now: only those of an hour can be this old.
        for (step, before, into) in folds.into_iter().chain([(HOUR, oldest, None)]) {
            gone = gone.saturating_add(self.in_rounds(move |c| portion(c, step, before, into))?);
        }
        self.in_rounds(move |c| {
            Ok(c.prepare_cached(FORGET)?
                .execute(params![oldest, i64::try_from(ROUND).unwrap_or(i64::MAX)])?)
        })?;
        Ok(u64::try_from(gone).unwrap_or(u64::MAX))
    }

    /// Does something of at most [`ROUND`] rows in a transaction of its own until there is nothing left to do.
    fn in_rounds(
        &self,
        round: impl Fn(&Connection) -> Result<usize, StoreError> + Clone + Send + 'static,
    ) -> Result<usize, StoreError> {
        let mut all = 0_usize;
        loop {
            let round = round.clone();
            let done = self.database.write(move |c| round(c))?;
            all = all.saturating_add(done);
            if done < ROUND {
                return Ok(all);
            }
        }
    }
}

/// The first point behind a portion of the points of a step that are older than a time.
const BEHIND: &str = "SELECT at, series, unit FROM metrics_point WHERE step = ?1 AND at < ?2 ORDER BY at, series, unit \
    LIMIT 1 OFFSET ?3";
const FOLD: &str = "INSERT INTO metrics_point (series, at, step, unit, count, sum, min, max) \
    SELECT series, at / ?5 * ?5, ?5, unit, sum(count), sum(sum), min(min), max(max) FROM metrics_point \
    WHERE step = ?1 AND (at, series, unit) < (?2, ?3, ?4) GROUP BY series, at / ?5, unit \
    ON CONFLICT (series, at, step, unit) DO UPDATE SET count = count + excluded.count, sum = sum + excluded.sum, \
    min = min(min, excluded.min), max = max(max, excluded.max)";
const REMOVE: &str = "DELETE FROM metrics_point WHERE step = ?1 AND (at, series, unit) < (?2, ?3, ?4)";
const FORGET: &str =
    "DELETE FROM metrics_series WHERE id IN (SELECT id FROM metrics_series WHERE last < ?1 ORDER BY last LIMIT ?2)";

/// Folds the oldest points of a step that are older than a time into a coarser step, or only removes them. At most [`ROUND`];
/// returns how many.
fn portion(c: &Connection, step: i64, before: i64, into: Option<i64>) -> Result<usize, StoreError> {
    let round = i64::try_from(ROUND).unwrap_or(i64::MAX);
    let behind: Option<(i64, i64, String)> = c
        .prepare_cached(BEHIND)?
        .query_row(params![step, before, round], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    // No series has the number 0: without such a point, all that are older go.
    let (at, series, unit) = behind.unwrap_or((before, 0, String::new()));
    if let Some(into) = into {
        c.prepare_cached(FOLD)?.execute(params![step, at, series, unit, into])?;
    }
    Ok(c.prepare_cached(REMOVE)?.execute(params![step, at, series, unit])?)
}

/// The id of a series, which is made at its first value.
fn series_of(c: &Connection, scope: &Scope, key: &MetricKey, at: Timestamp) -> Result<i64, StoreError> {
    let (account, region, dimensions) = (scope.account.as_str(), scope.region.as_str(), text(key)?);
    let found: Option<(i64, i64)> = c
        .prepare_cached(
            "SELECT id, last FROM metrics_series WHERE account = ?1 AND region = ?2 AND namespace = ?3 AND name = ?4 \
             AND dimensions = ?5",
        )?
        .query_row(params![account, region, key.namespace, key.name, dimensions], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some((id, last)) = found {
        if at.0 > last {
            c.prepare_cached("UPDATE metrics_series SET last = ?2 WHERE id = ?1")?
                .execute((id, at.0))?;
        }
        return Ok(id);
    }
    c.prepare_cached(
        "INSERT INTO metrics_series (account, region, namespace, name, dimensions, last) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![account, region, key.namespace, key.name, dimensions, at.0])?;
    Ok(c.last_insert_rowid())
}

/// Dimensions as the table has them: JSON, sorted by name.
fn text(key: &MetricKey) -> Result<String, StoreError> {
    serde_json::to_string(&key.dimensions).map_err(StoreError::Encode)
}

fn key_of(row: &Row<'_>) -> Result<MetricKey, StoreError> {
    let dimensions: String = row.get(3)?;
    let dimensions: BTreeMap<String, String> =
        serde_json::from_str(&dimensions).map_err(|source| StoreError::Decode {
            kind: "metric".into(),
            name: dimensions.clone(),
            source,
        })?;
    Ok(MetricKey {
        namespace: row.get(1)?,
        name: row.get(2)?,
        dimensions,
    })
}

fn statistics(row: &Row<'_>, first: usize) -> rusqlite::Result<StatisticSet> {
    let column = |at: usize| first.saturating_add(at);
    Ok(StatisticSet {
        count: row.get(column(0))?,
        sum: row.get(column(1))?,
        min: row.get(column(2))?,
        max: row.get(column(3))?,
    })
}

fn floor(at: i64, step: i64) -> i64 {
    at.div_euclid(step).saturating_mul(step)
}

#[cfg(test)]
mod tests;
