//! Bars for what may take minutes. They are drawn on a terminal alone: pipes and files get nothing.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `size` bytes, gone when it is dropped.
pub(super) fn sending(what: String, size: u64) -> ProgressBar {
    styled(
        ProgressBar::new(size),
        what,
        "{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    )
}

/// A count of bytes whose end nobody knows yet, gone when it is dropped.
pub(super) fn counting(what: String) -> ProgressBar {
    styled(ProgressBar::new_spinner(), what, "{msg} {bytes}, {bytes_per_sec}")
}

fn styled(bar: ProgressBar, what: String, template: &str) -> ProgressBar {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what).with_finish(indicatif::ProgressFinish::AndClear)
}
