//! Tables for people: columns as wide as they must be, two blanks apart.

/// Lays rows out under `head`. Every row has as many cells as the head; an empty cell is `-`.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| shown(cell).chars().count()).max();
        widest.unwrap_or(0).max(head[column].chars().count())
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut text = line(head.iter().copied(), &widths);
    for row in rows {
        text.push_str(&line(row.iter().map(|cell| shown(cell)), &widths));
    }
    text
}

fn shown(cell: &str) -> &str {
    if cell.is_empty() { "-" } else { cell }
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let cells: Vec<_> = cells
        .zip(widths)
        .map(|(cell, width)| format!("{cell:<width$}"))
        .collect();
    format!("{}\n", cells.join("  ").trim_end())
}

/// Each line of `text` with blanks before it.
pub(super) fn indented(text: &str, blanks: usize) -> String {
    text.lines()
        .map(|line| format!("{:blanks$}{line}\n", ""))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec!["orders".into(), "".into(), "x".into()],
            vec!["é".into(), "True".into(), "".into()],
        ];
        let text = table(&["NAME", "READY", "X"], &rows);
        assert_eq!(
            text,
            "NAME    READY  X\norders  -      x\né       True   -\n"
        );
        assert_eq!(indented("a\nb\n", 2), "  a\n  b\n");
    }
}
