//! A pull from the store of the team.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;

use crate::config::{MaxAge, NamePattern, Settings};
use crate::context::Context;
use crate::git;
use crate::live::{self, LockedLiveSet, Replaced};
use crate::moment;
use crate::pull::report::say_skipped;
use crate::sanitize::rules_hash;
use crate::share::fetch::{self, Offer};
use crate::share::publish::{Known, by_content};
use crate::share::vault::{self, Vault};
use crate::share::{portable, report};
use crate::snapshots::{Kind, Meta, Origin, Snapshot, Store, has_same_content};
use crate::ui::{age, bytes, count, from_here};

/// The number of databases in a summary.
const SHOWN: usize = 12;

pub struct Request<'a> {
    pub name: Option<&'a str>,
    pub only: Option<&'a NamePattern>,
    pub if_older: Option<&'a MaxAge>,
    /// Whether unmasked databases may be pulled.
    pub unmasked: bool,
    /// Whether nothing that is here is used.
    pub full: bool,
}

pub struct Fetched {
    pub snapshot: Snapshot,
    url: String,
    published: String,
    wire_bytes: u64,
}

/// The newest pull from the store.
///
/// # Errors
///
/// The snapshots cannot be read.
pub fn newest(settings: &Settings) -> Result<Option<Snapshot>> {
    let url = settings.share.as_ref().map(|share| &share.url);
    let fits = |it: &Snapshot| {
        it.is_pull() && it.origin().is_some_and(|origin| origin.share.as_ref() == url)
    };
    Ok(Store::of(settings).list()?.into_iter().find(fits))
}

impl Request<'_> {
    /// Whether the newest pull from the store is young enough; says so.
    pub fn skip(&self, cx: &Context, settings: &Settings) -> Result<bool> {
        let Some(limit) = self.if_older else { return Ok(false) };
        let url = &vault::settings(settings)?.url;
        let only = self.only.map(NamePattern::as_str);
        let (now, rules) = (Timestamp::now(), &settings.rules);
        let fits = |it: &Snapshot| {
            it.is_pull()
                && it.defect.is_none()
                && it.origin().is_some_and(|origin| origin.share.as_ref() == Some(url))
                && (it.only().is_none() || it.only() == only)
                && it.source() == settings.source.as_deref()
                && (self.unmasked || it.unsanitized(rules).is_empty())
                && it.time <= now
                && now.duration_since(it.time) <= limit.limit()
        };
        let Some(fresh) = Store::of(settings).list()?.into_iter().find(fits) else {
            return Ok(false);
        };
        let ago = age(now.duration_since(fresh.time).as_secs());
        let why = format!("pulled {ago}, --if-older {}", limit.text());
        cx.ui.status("Skipped", format!("the pull: {} is fresh ({why})", fresh.name));
        say_skipped(&cx.ui, "young", Some(&fresh))?;
        Ok(true)
    }

    fn offer(&self, vault: &Vault<'_>, settings: &Settings) -> Result<Offer> {
        let offer = fetch::choose(vault, self.name, settings, self.only)?;
        if !self.unmasked {
            let unmasked = portable::unmasked(&offer.manifest.meta, &settings.rules);
            portable::refuse_unmasked(&unmasked, &offer.entry.name, "--no-sanitize")?;
        }
        Ok(offer)
    }

    fn local(&self, store: &Store) -> Result<HashMap<String, Known>> {
        if self.full { Ok(HashMap::new()) } else { by_content(store) }
    }

    /// Reports what a pull would fetch.
    pub fn plan(
        &self,
        cx: &Context,
        settings: &Settings,
        removed: impl FnOnce(&[String]) -> Result<Vec<String>>,
    ) -> Result<()> {
        let (ui, store) = (&cx.ui, Store::of(settings));
        let vault = Vault::open(vault::settings(settings)?, &store, false)?;
        let offer = self.offer(&vault, settings)?;
        let missing = offer.missing(&vault, &self.local(&store)?)?;
        let databases = &offer.manifest.meta.databases;
        let names: Vec<_> = databases.iter().map(|one| one.name.clone()).collect();
        let removes = removed(&names)?;
        let of = |name: &str| missing.get(name).copied().unwrap_or(0);
        if ui.json {
            let planned = databases.iter().map(|one| report::Planned {
                name: &one.name,
                bytes: one.bytes,
                missing_bytes: of(&one.name),
            });
            return ui.json(&report::Plan {
                dry_run: true,
                share: vault.url(),
                published: &offer.entry.name,
                databases: planned.collect(),
                removes: &removes,
            });
        }
        ui.status("Would pull", format!("{} from {}", title(&offer), vault.url()));
        let mut largest: Vec<_> = databases.iter().collect();
        largest.sort_by_key(|one| std::cmp::Reverse(of(&one.name)));
        for one in largest.iter().take(SHOWN) {
            let what = match of(&one.name) {
                0 => "already here".to_owned(),
                n => format!("{} not here", bytes(n)),
            };
            ui.status("", format!("{}  {}  {what}", one.name, bytes(one.bytes)));
        }
        if largest.len() > SHOWN {
            ui.status("", format!("and {} more", largest.len() - SHOWN));
        }
        if !removes.is_empty() {
            ui.status("Would remove", removes.join(", ") + ", which the snapshot does not have");
        }
        let all = missing.values().sum();
        ui.status("Would fetch", format!("at most {}; nothing was changed", bytes(all)));
        Ok(())
    }

    /// Makes a snapshot of what was published, unless it is here already.
    pub fn fetch(
        &self,
        cx: &Context,
        settings: &Settings,
        live: &LockedLiveSet<'_>,
        start: Instant,
    ) -> Result<Fetched> {
        let vault = Vault::open(vault::settings(settings)?, &live.store, false)?;
        let offer = self.offer(&vault, settings)?;
        let meta = &offer.manifest.meta;
        let rules = meta.origin.as_ref().map(|origin| &origin.sanitize_rules);
        if rules.is_some_and(|rules| *rules != rules_hash(&settings.rules)) {
            cx.ui
                .warn("what was published was masked with other rules than those of xtask/db.toml");
            cx.ui.hint("a member who may pull from the server does, and publishes again");
        }
        let known = live.store.list()?.into_iter();
        let is_whole = |it: &Snapshot| {
            let databases = it.meta.iter().flat_map(|meta| &meta.databases);
            databases.into_iter().all(|one| one.is_recorded(&it.path.join(&one.name)))
        };
        let known =
            known.filter(|it| it.is_pull() && is_whole(it)).find(|one| has_same_content(one, meta));
        let snapshot = match known.filter(|_| !self.full) {
            Some(known) => known,
            None => {
                let step = cx.ui.step("Fetching", Some("Fetched"), title(&offer));
                let builder = live.store.begin(Kind::Pull)?;
                let local = self.local(&live.store)?;
                let databases = step.during(
                    || bytes(vault.bytes()),
                    || offer.fetch(&vault, builder.path(), &local),
                )?;
                step.finish();
                crate::interrupt::check()?;
                let origin = meta.origin.clone().map(|origin| Origin {
                    data_dir: Some(settings.data_dir.clone()),
                    share: Some(vault.url().to_owned()),
                    seconds: start.elapsed().as_secs_f64(),
                    wire_bytes: vault.bytes(),
                    ..origin
                });
                let git_commit = git::head(&cx.sh, &settings.root);
                let (kind, label) = (Kind::Pull, None);
                builder.commit(Meta {
                    kind,
                    label,
                    origin,
                    git_commit,
                    databases,
                    ..meta.clone()
                })?
            }
        };
        let (url, published) = (vault.url().to_owned(), offer.entry.name.clone());
        Ok(Fetched { snapshot, url, published, wire_bytes: vault.bytes() })
    }
}

/// `2 databases of backup_… (yesterday 18:00)`
fn title(offer: &Offer) -> String {
    let when = moment::words(offer.entry.time, &moment::now());
    let databases = count(offer.manifest.meta.databases.len(), "database");
    format!("{databases} of {} ({when})", offer.entry.name)
}

impl Fetched {
    pub fn report(
        &self,
        cx: &Context,
        settings: &Settings,
        replaced: &Replaced,
        start: Instant,
    ) -> Result<()> {
        let Self { snapshot, url, published, wire_bytes } = self;
        let (ui, seconds) = (&cx.ui, start.elapsed().as_secs_f64());
        let databases = snapshot.meta.iter().flat_map(|meta| meta.databases.clone());
        let databases: Vec<_> = databases
            .map(|one| crate::snapshots::Database { remote: None, file: None, ..one })
            .collect();
        if ui.json {
            return ui.json(&report::Pulled {
                skipped: false,
                share: url,
                published,
                snapshot: &snapshot.name,
                before: replaced.before.as_ref().map(|saved| saved.name.as_str()),
                databases,
                removed: &replaced.removed,
                programs: &replaced.programs,
                unsanitized_databases: &replaced.unsanitized,
                seconds,
                wire_bytes: *wire_bytes,
            });
        }
        let when = moment::words(snapshot.time, &moment::now());
        let set = count(databases.len(), "database");
        ui.status("Pulled", format!("{set} of {published} ({when}) from {url}"));
        let (travelled, all) = (bytes(*wire_bytes), bytes(snapshot.bytes()));
        let dir = from_here(&settings.data_dir);
        ui.status("Ready", format!("{dir} in {seconds:.1} s, {travelled} fetched for {all}"));
        live::report::replaced(ui, snapshot, replaced);
        Ok(())
    }
}
