//! Tables for people.

use comfy_table::CellAlignment;
use comfy_table::presets::NOTHING;

/// A table of columns and rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    title: Option<String>,
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: &'static str,
    is_right: bool,
    is_wide: bool,
}

impl Table {
    /// Creates a table. A column's name may begin with `>` to align it to the right, and with `+` to show it only in
    /// wide tables (`+>SIZE`).
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        let column = |name: &&'static str| {
            let shown = name.trim_start_matches(['+', '>']);
            let marks = &name[..name.len() - shown.len()];
            Column { name: shown, is_right: marks.contains('>'), is_wide: marks.contains('+') }
        };
        Self { title: None, columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Sets a line above the table.
    pub(crate) fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Adds rows; each has a cell for each column.
    pub(crate) fn with_rows(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// Formats the table, each line with its line feed.
    pub(crate) fn show(&self, wide: bool) -> String {
        let shown = |index: &usize| wide || !self.columns[*index].is_wide;
        let visible: Vec<usize> = (0..self.columns.len()).filter(shown).collect();
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_header(visible.iter().map(|index| self.columns[*index].name));
        for row in &self.rows {
            table.add_row(visible.iter().map(|index| row.get(*index).map_or("", String::as_str)));
        }
        for (place, index) in visible.iter().enumerate() {
            if let Some(column) = table.column_mut(place) {
                column.set_padding((0, 2));
                if self.columns[*index].is_right {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        let title = self.title.iter().map(|title| format!("{title}\n"));
        title.chain(table.lines().map(|line| format!("{}\n", line.trim_end()))).collect()
    }
}

/// Formats a value that may be absent; absent is `-`.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Formats a list: `1,2,3`; an empty one is `-`.
pub(crate) fn list(values: impl IntoIterator<Item = impl ToString>) -> String {
    let shown: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    if shown.is_empty() { "-".to_owned() } else { shown.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_wide_ones_are_asked_for() {
        let table = Table::new(&["NAME", ">SIZE", "+NOTE"])
            .with_title("all:")
            .with_rows([vec!["a".into(), "1".into(), "x".into()], vec!["long".into(), "1000".into(), String::new()]]);
        assert_eq!(table.show(false), "all:\nNAME  SIZE\na        1\nlong  1000\n");
        assert_eq!(table.show(true), "all:\nNAME  SIZE  NOTE\na        1  x\nlong  1000\n");
    }
}
