//! What a [`Mesh`] tells: to the operator that it is ready, that a process exited, why a start failed and how the
//! instances are; to other commands where it is.

use std::sync::PoisonError;
use std::time::Duration;

use serde_json::json;

use crate::failure::Failure;
use crate::output;

use super::super::plan::reachable;
use super::super::run_file::{ProcessEntry, RunFile};
use super::super::supervise::{Condition, GaveUp, MemberId, START_EXITS_MAX};
use super::{Health, Mesh};

impl Mesh {
    /// Where to look.
    pub(super) fn tell_ready(&mut self) {
        let gateways = self.gateway_urls();
        let api = format!("http://{}", self.plan.api);
        let ready = self.began.elapsed();
        let instances = self.plan.instances.len();
        let event = json!({
            "event": "ready", "mesh": self.plan.mesh, "instances": instances, "gateways": gateways, "api": api,
            "state": self.state.path(), "elapsed_ms": millis(ready),
            "control_ready_ms": self.control_ready.map(millis),
        });
        let control = self.control_ready.unwrap_or_default().as_secs_f64();
        let mut text = format!(
            "{} is ready: {instances} instances, {:.2} s after the start (control plane {control:.2} s)",
            self.plan.mesh,
            ready.as_secs_f64(),
        );
        for (gateway, paths) in gateways.iter().zip(&self.plan.gateway_paths) {
            text.push_str(format!("\n  gateway  {gateway}  {}", paths.join(" ")).trim_end());
        }
        for admin in self.plan.gateway_admins.iter().map(|admin| reachable(*admin)) {
            text.push_str(&format!("\n  admin    http://{admin}/metrics"));
        }
        text.push_str(&format!("\n  api      {api}"));
        text.push_str(&format!("\n  logs     {}", self.state.logs().display()));
        // From here it is found by itself if its state is where everybody looks.
        let found = RunFile::find().ok().flatten().is_some_and(|run| run.pid == std::process::id());
        let state = if found { String::new() } else { format!(" --state {}", self.state.path().display()) };
        text.push_str(&format!("\n  look     leno status{state}"));
        self.view.tell(&event, &text);
    }

    /// That a process exited by itself.
    pub(super) fn tell_restarting(&mut self, id: MemberId, delay: Duration) {
        let name = &self.plan.members[id].name;
        let how = self.slots[id].ended.clone().unwrap_or_default();
        let event = json!({
            "event": "exited", "name": name, "how": how, "restart_in_ms": millis(delay),
            "output": self.tail(id),
        });
        let mut text = format!("{name} {how}; it is started again in {delay:?}");
        for line in self.tail(id) {
            text.push_str(&format!("\n  | {line}"));
        }
        self.view.tell(&event, &text);
    }

    /// That a process that had exited does its work again.
    pub(super) fn tell_recovered(&mut self, id: MemberId) {
        let name = &self.plan.members[id].name;
        self.view.tell(&json!({ "event": "recovered", "name": name }), &format!("{name} is ready again"));
    }

    /// Why the start failed: what the process says when everything has ended.
    pub(super) fn note_failure(&mut self, why: &GaveUp) {
        let name = |id: MemberId| self.plan.members[id].name.as_str();
        let ended = |id: MemberId| self.slots[id].ended.clone().unwrap_or_default();
        let (mut text, shown) = match why {
            GaveUp::CannotStart(id) => (format!("{} {}", name(*id), ended(*id)), vec![*id]),
            GaveUp::Exits(id) => {
                let text =
                    format!("{} {} ({START_EXITS_MAX} times while the mesh started)", name(*id), ended(*id));
                (text, vec![*id])
            }
            GaveUp::Deadline(missing) => {
                let seconds = self.began.elapsed().as_secs();
                (format!("{} is not ready after {seconds} s", self.plan.mesh), missing.clone())
            }
        };
        for id in shown {
            if let GaveUp::Deadline(missing) = why {
                text.push_str(&format!("\n  {} {}", name(id), self.why_not_up(id, missing)));
            }
            for line in self.tail(id) {
                text.push_str(&format!("\n    | {line}"));
            }
        }
        self.failure = Some(Failure::failed(text));
    }

    /// Why a member is among the `missing`; by now all of them are being stopped.
    fn why_not_up(&self, id: MemberId, missing: &[MemberId]) -> String {
        let slot = &self.slots[id];
        if slot.launch == 0 {
            let waits = self.plan.members[id].spec.after.iter().filter(|after| missing.contains(after));
            let names: Vec<&str> = waits.map(|&after| self.plan.members[after].name.as_str()).collect();
            return format!("waits for {}", names.join(", "));
        }
        match (&slot.process, &slot.ended) {
            (Some(_), _) => self.missing(id).unwrap_or_else(|| "became ready too late".to_owned()),
            (None, Some(ended)) => ended.clone(),
            (None, None) => "waits for its join token".to_owned(),
        }
    }

    fn tail(&self, id: MemberId) -> Vec<String> {
        self.slots[id].log.lock().unwrap_or_else(PoisonError::into_inner).tail()
    }

    /// Draws the live table, if there is one.
    pub(super) fn draw(&mut self) {
        if !self.view.is_live() || !*self.ready.borrow() || self.supervisor.is_stopping() {
            return;
        }
        let heading = ["instance", "service", "version", "process", "health", "requests/s", "restarts"];
        let rows: Vec<Vec<String>> =
            (0..self.plan.instances.len()).take(ROWS_MAX).map(|at| self.row(at)).collect();
        let mut table = output::table(&heading, &rows);
        if self.plan.instances.len() > ROWS_MAX {
            table.push_str(&format!("\nand {} more: leno instances", self.plan.instances.len() - ROWS_MAX));
        }
        self.view.draw(&table);
    }

    fn row(&self, place: usize) -> Vec<String> {
        let instance = &self.plan.instances[place];
        let conditions = [instance.command, Some(instance.sidecar)].into_iter().flatten();
        let process =
            conditions.map(|id| (id, self.supervisor.condition(id))).find(|(_, is)| *is != Condition::Up);
        let process = match process {
            None => "up".to_owned(),
            Some((id, _)) if id == instance.sidecar => "sidecar down".to_owned(),
            Some((_, Condition::Starting)) => "starting".to_owned(),
            Some(_) => "down".to_owned(),
        };
        let health = match &self.health[place] {
            Health::Healthy => "healthy",
            Health::Unknown => "unknown",
            Health::Not(_) => "unhealthy",
        };
        let members = [instance.command, Some(instance.sidecar)].into_iter().flatten();
        let restarts: u32 = members.map(|id| self.supervisor.restarts(id)).sum();
        vec![
            instance.name.clone(),
            instance.service.clone(),
            output::cell(instance.version.as_ref()),
            process,
            health.to_owned(),
            output::cell(self.served[place].1.map(|rate| format!("{rate:.0}"))),
            restarts.to_string(),
        ]
    }

    /// Failing to write it only costs `leno status` its way here.
    pub(super) fn write_run_file(&self) {
        let processes = self.plan.members.iter().zip(&self.slots).map(|(member, slot)| ProcessEntry {
            name: member.name.clone(),
            kind: member.kind.word().to_owned(),
            pid: slot.process.as_ref().map(|process| process.pid.as_raw_nonzero().get().cast_unsigned()),
            admin: member.admin.map(|admin| format!("http://{}", reachable(admin))),
        });
        let run = RunFile {
            mesh: self.plan.mesh.clone(),
            pid: std::process::id(),
            api: format!("http://{}", self.plan.api),
            control: self.plan.control.to_string(),
            token_file: self.state.token_file(),
            gateways: self.gateway_urls(),
            processes: processes.collect(),
        };
        if let Err(error) = run.write(self.state.path()) {
            tracing::warn!(%error, "cannot write the run file; `leno status` needs --api");
        }
    }

    pub(super) fn gateway_urls(&self) -> Vec<String> {
        let gateways = self.gateways.iter().zip(&self.plan.gateway_schemes);
        gateways
            .filter_map(|(address, scheme)| Some(format!("{scheme}://{}", reachable((*address)?))))
            .collect()
    }
}

/// Whole milliseconds.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Rows of the live table: a table higher than the terminal cannot be drawn anew.
const ROWS_MAX: usize = 30;
