//! Columns of text, as wide as their widest cell.

/// Rows under a header. Cells may carry styles; only what is visible counts.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

const GAP: &str = "   ";

impl Table {
    pub fn new(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The last cell of a line is not padded, so no line ends with a blank.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let last = row.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
            for (column, cell) in row.iter().enumerate().take(last + 1) {
                text.push_str(cell);
                if column < last {
                    text.extend(std::iter::repeat_n(' ', widths[column] - width(cell)));
                    text.push_str(GAP);
                }
            }
            text.push('\n');
        }
        text
    }
}

fn width(cell: &str) -> usize {
    match cell.contains('\x1b') {
        true => anstream::adapter::strip_str(cell).to_string().chars().count(),
        false => cell.chars().count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_their_colour() {
        let mut table = Table::new(&["NAME", "STATUS", "PORTS"]);
        table.row(vec!["web".into(), "\x1b[32mUp\x1b[0m".into(), "80".into()]);
        table.row(vec!["worker".into(), "Exited".into(), String::new()]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        assert_eq!(plain, "NAME     STATUS   PORTS\nweb      Up       80\nworker   Exited\n");
    }
}
