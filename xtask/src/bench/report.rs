//! The figures, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::conditions::Conditions;
use super::figures::{Figures, Metric, Summary};
use super::rig::Way;
use super::targets::{Verdict, judge};

/// Everything there is to say; its JSON is the object that `--json` writes.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    conditions: Conditions,
    figures: Vec<Figure>,
    targets: Vec<Verdict>,
}

/// One metric.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    unit: &'static str,
    ways: Vec<Standing>,
    #[serde(skip)]
    digits: usize,
}

/// One metric of one way.
#[derive(Debug, Serialize)]
struct Standing {
    way: &'static str,
    value: Summary,
    /// How many times the value of other ways this one is.
    to: BTreeMap<&'static str, Summary>,
}

impl Report {
    pub(super) fn new(conditions: Conditions, figures: &Figures) -> Self {
        Self {
            conditions,
            figures: Metric::ALL.iter().filter_map(|metric| Figure::of(*metric, figures)).collect(),
            targets: judge(figures),
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let ratios = Way::YARDSTICKS.map(|way| format!("of {}", way.name()));
        table.set_header(["", "", "", ""].map(str::to_owned).into_iter().chain(ratios));
        for row in self.figures.iter().flat_map(Figure::rows) {
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn targets(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for Verdict { way, name, wanted, measured, met, digits } in &self.targets {
            let met = if *met { "met" } else { "not met" };
            table.add_row([met, way, name, &format!("{measured:.digits$}"), wanted]);
        }
        table
    }
}

impl Figure {
    /// `None` if nothing of it was measured.
    fn of(metric: Metric, figures: &Figures) -> Option<Self> {
        let ways: Vec<_> =
            Way::ALL.into_iter().filter_map(|way| Standing::of(metric, way, figures)).collect();
        let (name, unit, digits) = (metric.name(), metric.unit(), metric.digits());
        (!ways.is_empty()).then_some(Self { name, unit, ways, digits })
    }

    /// A row for each way: name and unit in the first, way, value, ratios.
    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        let titles = std::iter::once([self.name, self.unit]).chain(std::iter::repeat([""; 2]));
        titles.zip(&self.ways).map(|(title, standing)| {
            let title = title.map(str::to_owned).into_iter();
            title.chain(standing.cells(self.digits)).collect()
        })
    }
}

impl Standing {
    /// `None` if it was not measured.
    fn of(metric: Metric, way: Way, figures: &Figures) -> Option<Self> {
        let others = Way::YARDSTICKS.into_iter().filter(|other| *other != way);
        let to = others
            .filter_map(|other| Some((other.name(), figures.ratio(metric, way, other)?)))
            .collect();
        Some(Self { way: way.name(), value: figures.summary(metric, way)?, to })
    }

    /// Way, value, and a ratio for each yardstick.
    fn cells(&self, digits: usize) -> Vec<String> {
        let Summary { median, min, max, .. } = &self.value;
        let value = format!("{median:.digits$} ({min:.digits$}–{max:.digits$})");
        let ratio = |other: Way| {
            let ratio = self.to.get(other.name());
            ratio.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median))
        };
        let mut cells = vec![self.way.to_owned(), value];
        cells.extend(Way::YARDSTICKS.map(ratio));
        cells
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.table().trim_fmt())?;
        writeln!(f, "{}\n", self.targets().trim_fmt())?;
        writeln!(f, "{}", self.conditions)
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}, {}, {}", self.adit, self.wireguard_go, self.iperf, self.date)?;
        writeln!(
            f,
            "{} with {} cores, Linux {}, load {:.2} before",
            self.processor, self.cores, self.kernel, self.load
        )?;
        write!(f, "median (least–most) of {} rounds, {} s for each load", self.rounds, self.seconds)
    }
}
