//! `adit doctor`: why packets do not pass.

use std::path::PathBuf;

use clap::Args;
use engine::doctor::{self, Check, Finding, Severity};
use serde::Serialize;

use crate::output::Output;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A tunnel's configuration, or the name of a running tunnel; without it the host in general.
    #[arg(value_name = "NAME|FILE")]
    tunnel: Option<PathBuf>,

    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// The answer, as `--json` prints it.
#[derive(Serialize)]
struct Answer<'a> {
    findings: Vec<Described<'a>>,
    /// Whether a finding stops packets.
    stops: bool,
}

#[derive(Serialize)]
struct Described<'a> {
    severity: String,
    subject: &'a str,
    says: &'a str,
    evidence: &'a str,
    mend: &'a str,
}

pub(crate) fn run(args: &DoctorArgs, output: &mut Output) -> Result<Exit, Failure> {
    let config = args.tunnel.as_deref().map(doctor::find).transpose()?;
    let observed = doctor::observe(config)?;
    let findings = doctor::diagnose(&observed);
    if args.json {
        output.json(&answer(&findings))?;
    } else {
        if output.verbosity() > 0 {
            tell_fine(&doctor::examine(&observed), output)?;
        }
        tell(&findings, output)?;
    }
    Ok(if stops(&findings) > 0 { Exit::Failed } else { Exit::Done })
}

fn tell_fine(checks: &[Check], output: &mut Output) -> Result<(), Failure> {
    for check in checks.iter().filter(|check| check.findings.is_empty()) {
        output.line(format_args!("ok: {}", check.fine))?;
    }
    Ok(())
}

fn tell(findings: &[Finding], output: &mut Output) -> Result<(), Failure> {
    for Finding { severity, subject, says, evidence, mend } in findings {
        output.line(format_args!("{severity}: {subject}: {says}"))?;
        output.line(format_args!("  seen: {evidence}"))?;
        output.line(format_args!("  mend: {mend}"))?;
    }
    output.line(verdict(findings))?;
    Ok(())
}

fn verdict(findings: &[Finding]) -> String {
    let degrade = findings.iter().any(|finding| finding.severity == Severity::Degrades);
    match (stops(findings), degrade) {
        (0, false) => "nothing that was looked at stops packets".to_owned(),
        (0, true) => "packets pass, but not as well as they could".to_owned(),
        (1, _) => "1 finding stops packets".to_owned(),
        (count, _) => format!("{count} findings stop packets"),
    }
}

fn answer(findings: &[Finding]) -> Answer<'_> {
    let described = findings.iter().map(|finding| Described {
        severity: finding.severity.to_string(),
        subject: &finding.subject,
        says: &finding.says,
        evidence: &finding.evidence,
        mend: &finding.mend,
    });
    Answer { findings: described.collect(), stops: stops(findings) > 0 }
}

fn stops(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.severity == Severity::Stops).count()
}
