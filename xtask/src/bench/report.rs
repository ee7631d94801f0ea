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
    /// By the name of the way.
    ways: BTreeMap<&'static str, Summary>,
    /// How many times the value of other ways adit's is.
    adit_to: BTreeMap<&'static str, Summary>,
    #[serde(skip)]
    digits: usize,
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
        let ways = Way::ALL.map(|way| way.name().to_owned());
        let header = ["", ""].map(str::to_owned).into_iter().chain(ways);
        let ratios = ["adit/bare", "adit/vxlan"].map(str::to_owned);
        table.set_header(header.chain(ratios));
        for figure in &self.figures {
            table.add_row(figure.row());
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn targets(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for Verdict { name, wanted, measured, met, digits } in &self.targets {
            let met = if *met { "met" } else { "not met" };
            table.add_row([met, name, &format!("{measured:.digits$}"), wanted]);
        }
        table
    }
}

impl Figure {
    /// `None` if nothing of it was measured.
    fn of(metric: Metric, figures: &Figures) -> Option<Self> {
        let ways: BTreeMap<_, _> = Way::ALL
            .into_iter()
            .filter_map(|way| Some((way.name(), figures.summary(metric, way)?)))
            .collect();
        let adit_to = [Way::Bare, Way::Vxlan]
            .into_iter()
            .filter_map(|way| Some((way.name(), figures.ratio(metric, Way::Adit, way)?)))
            .collect();
        let (name, unit, digits) = (metric.name(), metric.unit(), metric.digits());
        (!ways.is_empty()).then_some(Self { name, unit, ways, adit_to, digits })
    }

    /// Name, unit, one cell for each way and two ratios.
    fn row(&self) -> Vec<String> {
        let digits = self.digits;
        let value = |Summary { median, min, max, .. }: &Summary| {
            format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
        };
        let ratio = |ratio: &Summary| format!("{:.2}", ratio.median);
        let mut row = vec![self.name.to_owned(), self.unit.to_owned()];
        row.extend(Way::ALL.map(|way| self.ways.get(way.name()).map_or_else(String::new, value)));
        row.extend(
            [Way::Bare, Way::Vxlan]
                .map(|way| self.adit_to.get(way.name()).map_or_else(String::new, ratio)),
        );
        row
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
        writeln!(f, "{}, {}, {}", self.adit, self.iperf, self.date)?;
        writeln!(
            f,
            "{} with {} cores, Linux {}, load {:.2} before",
            self.processor, self.cores, self.kernel, self.load
        )?;
        write!(f, "median (least–most) of {} rounds, {} s for each load", self.rounds, self.seconds)
    }
}
