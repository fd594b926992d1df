//! Reads the value of one variable, and says in one sentence what is wrong with it.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use anyhow::{Result, anyhow};
use ipnet::IpNet;

/// The largest payload that may be configured: Postgres copes with more, but every copy of it is held in memory.
const LARGEST_SIZE: usize = 64 << 20;
/// The most memory that requests may be given.
const LARGEST_MEMORY: usize = 64 << 30;
const SMALLEST_SIZE: usize = 1 << 10;

/// A variable and its text; empty counts as unset.
pub(super) struct Variable<'a> {
    name: &'a str,
    text: Option<&'a str>,
}

impl<'a> Variable<'a> {
    pub(super) fn new(name: &'a str, text: Option<&'a str>) -> Self {
        Self { name, text: text.filter(|text| !text.is_empty()) }
    }

    /// Reads the value; `wanted` says what is right.
    pub(super) fn parse<T>(&self, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(text) = self.text else { return Ok(None) };
        read(text.trim()).map(Some).ok_or_else(|| anyhow!("{} is `{text}`, which cannot be used: set it to {wanted}", self.name))
    }

    /// Reads a value that must not be repeated in the error, nor trimmed.
    pub(super) fn secret<T>(&self, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(text) = self.text else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| anyhow!("{} cannot be used as it is: set it to {wanted}", self.name))
    }

    /// Reads a comma-separated list.
    pub(super) fn list<T>(&self, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<Vec<T>>> {
        self.parse(&format!("a comma-separated list of {wanted}"), |text| text.split(',').map(|item| read(item.trim())).collect())
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<Option<T>> {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
        self.parse(&words.join(" or "), |text| choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value))
    }
}

/// A duration such as `1h 30m` or `250ms`; `0` needs no unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" { Some(Duration::ZERO) } else { humantime::parse_duration(text).ok() }
}

/// A duration in this range.
pub(super) fn bounded_duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Option<Duration> {
    move |text| duration(text).filter(|duration| range.contains(duration))
}

/// A network such as `10.0.0.0/8`, or a single address.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// The size of a request, in bytes: `1048576`, `1024KiB`, `1MiB` or `1MB`.
pub(super) fn size(text: &str) -> Option<usize> {
    bytes(text).filter(|size| (SMALLEST_SIZE..=LARGEST_SIZE).contains(size))
}

/// A share of the machine's memory, likewise, or in `GiB` or `GB`.
pub(super) fn memory(text: &str) -> Option<usize> {
    bytes(text).filter(|size| (2 * SMALLEST_SIZE..=LARGEST_MEMORY).contains(size))
}

fn bytes(text: &str) -> Option<usize> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "kib" | "k" => 1 << 10,
        "mb" => 1_000_000,
        "mib" | "m" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" | "g" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}
