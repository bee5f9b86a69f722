//! What an experiment leaves behind: `aN.json`, `aN.csv`, its charts as SVG and PNG, and the report of everything
//! that lies in the folder.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::chart::{self, BarChart, ChartError, Svg};
use crate::error::LabError;
use crate::measure::{Check, Verdict};
use crate::report::{self, Block, Column, Section, Table};

/// The folder of results.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

/// A chart of an experiment.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// The name of its files, without ending.
    pub(crate) name: String,
    pub(crate) svg: Svg,
    pub(crate) caption: String,
}

/// The result of an experiment, as it is kept and as it is shown.
pub(crate) trait Findings: Serialize + DeserializeOwned {
    /// The name of its files.
    const NAME: &'static str;

    /// All counts, one line each.
    fn csv(&self) -> String;

    /// Its charts; the first one has the experiment's own name.
    fn figures(&self) -> Result<Vec<Figure>, ChartError>;

    /// Its part of the report.
    fn section(&self, figures: &[Figure]) -> Section;

    /// What is printed on a terminal.
    fn bars(&self) -> Vec<BarChart>;

    /// Its promises.
    fn checks(&self) -> &[Check];

    /// How it ended.
    fn verdict(&self) -> Verdict;
}

impl Folder {
    /// Makes the folder and checks that files can be written there, before anything is measured.
    pub(crate) fn open(path: PathBuf) -> Result<Folder, LabError> {
        let unusable = |error: std::io::Error| {
            LabError::Input(format!("--out {}: cannot write there: {error}", path.display()))
        };
        fs::create_dir_all(&path).map_err(unusable)?;
        let probe = path.join(".writable");
        fs::write(&probe, b"").map_err(unusable)?;
        fs::remove_file(&probe).map_err(unusable)?;
        Ok(Folder(path))
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.0
    }

    /// Writes a file under another name first: a reader never sees half of it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), LabError> {
        let (path, part) = (self.0.join(name), self.0.join(format!(".{name}.part")));
        let what = || format!("write {}", path.display());
        fs::write(&part, bytes).map_err(LabError::io(what()))?;
        fs::rename(&part, &path).map_err(LabError::io(what()))
    }

    /// Writes everything of an experiment.
    pub(crate) fn keep<F: Findings>(&self, findings: &F) -> Result<(), LabError> {
        let json =
            serde_json::to_vec_pretty(findings).map_err(|error| LabError::Failed(error.to_string()))?;
        self.write(&format!("{}.json", F::NAME), &json)?;
        self.write(&format!("{}.csv", F::NAME), findings.csv().as_bytes())?;
        for figure in findings.figures()? {
            self.write(&format!("{}.svg", figure.name), figure.svg.0.as_bytes())?;
            self.write(&format!("{}.png", figure.name), &chart::png(&figure.svg)?)?;
        }
        Ok(())
    }

    /// Reads what an earlier experiment left, if it did.
    pub(crate) fn read<F: Findings>(&self) -> Result<Option<F>, LabError> {
        let path = self.0.join(format!("{}.json", F::NAME));
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LabError::io(format!("read {}", path.display()))(error)),
        };
        // Of another version, or damaged: measured again, it is mended.
        Ok(serde_json::from_slice(&text).ok())
    }

    /// The section of what an earlier experiment left.
    pub(crate) fn section<F: Findings>(&self) -> Result<Option<Section>, LabError> {
        let Some(findings) = self.read::<F>()? else { return Ok(None) };
        Ok(Some(findings.section(&findings.figures()?)))
    }
}

/// The verdict as the report shows it.
pub(crate) fn verdict(findings: &impl Findings) -> report::Verdict {
    let checks = findings.checks();
    let held = checks.iter().filter(|check| check.pass).count();
    let text = format!("{held} of {} promises held", checks.len());
    match findings.verdict() {
        Verdict::Pass => report::Verdict::Pass(text),
        Verdict::Fail => report::Verdict::Fail(text),
        Verdict::Incomplete => report::Verdict::Info(format!("incomplete: {text}")),
    }
}

/// Figures as blocks of the report.
pub(crate) fn figure_blocks(figures: &[Figure]) -> impl Iterator<Item = Block> {
    figures.iter().map(|figure| Block::Figure { svg: figure.svg.clone(), caption: figure.caption.clone() })
}

/// The promises as a table.
pub(crate) fn checks_table(checks: &[Check]) -> Block {
    let rows = checks.iter().map(|check| {
        let held = if check.pass { "held" } else { "MISSED" };
        vec![check.what.clone(), check.measured.clone(), check.limit.clone(), held.to_owned()]
    });
    table("What was promised", &["promise", "measured:", "limit:", ""], rows.collect())
}

/// A table; a column whose title ends with `:` holds numbers.
pub(crate) fn table(caption: &str, columns: &[&str], rows: Vec<Vec<String>>) -> Block {
    let column = |title: &&str| Column {
        title: title.trim_end_matches(':').to_owned(),
        numeric: title.ends_with(':'),
    };
    Block::Table(Table {
        caption: caption.to_owned(),
        columns: columns.iter().map(column).collect(),
        rows,
        ..Table::default()
    })
}

/// One line of a CSV file (RFC 4180).
pub(crate) fn csv_line(cells: &[&dyn std::fmt::Display]) -> String {
    let cell = |cell: &&dyn std::fmt::Display| {
        let text = cell.to_string();
        if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    cells.iter().map(cell).collect::<Vec<_>>().join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_commas_are_quoted() {
        assert_eq!(csv_line(&[&"a,b", &1, &"say \"x\""]), "\"a,b\",1,\"say \"\"x\"\"\"\n");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_said_before_anything_is_measured() {
        let error = Folder::open(PathBuf::from("/proc/nowhere/lab")).unwrap_err().to_string();
        assert!(error.starts_with("--out /proc/nowhere/lab: cannot write there: "), "{error}");
    }
}
