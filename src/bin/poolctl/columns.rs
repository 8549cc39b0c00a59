//! Texts for a terminal, and rows of them, aligned by spaces.
//!
//! Texts of engines and files are shown without control characters: they shall not steer the terminal.

/// Rows of cells, aligned. `finish` has the last word on a cell, which has its width by then.
pub(crate) fn columns<R: AsRef<[String]>>(
    rows: &[R],
    finish: impl Fn(usize, usize, String) -> String,
) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.as_ref().len()), 0);
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |(index, row): (usize, &R)| {
        let row = row.as_ref();
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            // Nothing follows the last one that it has to be aligned with.
            let width = if column + 1 == row.len() { 0 } else { width };
            finish(index, column, format!("{cell:width$}"))
        });
        cells.collect::<Vec<_>>().join("  ") + "\n"
    };
    rows.iter().enumerate().map(line).collect()
}

pub(crate) fn cell(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text) }
}

/// A text on one line that does nothing to a terminal.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_aligned_and_finished_with_their_width() {
        let rows = [["a", "bbb", "c"], ["aaaa", "b", "cc"]].map(|row| row.map(str::to_owned));
        let marked = columns(
            &rows,
            |row, column, padded| {
                if (row, column) == (1, 1) { format!("[{padded}]") } else { padded }
            },
        );
        assert_eq!(marked, "a     bbb  c\naaaa  [b  ]  cc\n");
    }

    #[test]
    fn a_text_stays_on_its_line_and_does_nothing() {
        assert_eq!(printable("a\nb\tc\u{1b}[31m"), "a b c\u{fffd}[31m");
        assert_eq!(cell(""), "-");
    }
}
