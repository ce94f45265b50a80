//! Which rows of each table have to be compared, from the pages that differ.
//!
//! A page of rows is the same in both databases if it is in the b-tree of the same table in both,
//! has the same bytes, and so have the overflow pages of its rows. (A free page keeps its bytes, and
//! a large value may be overwritten in place, so neither is enough alone.) All other pages become
//! ranges of rowids: outside of them, both have the same rows.

use anyhow::Result;

use super::btree::{self, Tree};
use super::source::Source;
use crate::{interrupt, pages};

/// The rows of a table to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    All,
    /// Sorted ranges of rowids; none if all rows are the same.
    Ranges(Vec<(i64, i64)>),
}

impl Scan {
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Ranges(ranges) if ranges.is_empty())
    }
}

/// The root pages of a table or index in either database; 0 where it does not exist.
pub type Roots = (u32, u32);

/// What to compare of each table or index, whose roots are all those of the first database.
///
/// # Errors
///
/// A page cannot be read, or this process was asked to end.
pub fn scans(a: &Source, b: &Source, differs: &[bool], roots: &[Roots]) -> Result<Vec<Scan>> {
    let mut pair = Pair {
        a,
        b,
        differs,
        in_a: vec![0; a.pages as usize + 1],
        in_b: vec![0; b.pages as usize + 1],
        known: vec![false; a.pages as usize + 1],
        round: 0,
    };
    let mut scans = Vec::new();
    for roots in roots {
        scans.push(pair.scan(*roots)?);
    }
    if pair.has_unknown()? {
        for (roots, scan) in roots.iter().zip(&mut scans) {
            pair.add_overwritten(*roots, scan)?;
        }
    }
    Ok(scans)
}

struct Pair<'a> {
    a: &'a Source,
    b: &'a Source,
    differs: &'a [bool],
    /// For each page, the last round in which it was part of a tree.
    in_a: Vec<u32>,
    in_b: Vec<u32>,
    round: u32,
    /// The pages of the first database that are no overflow pages of rows that seem to be the same.
    known: Vec<bool>,
}

impl Pair<'_> {
    /// The trees of both databases, whose pages are marked; `None` if one is malformed.
    fn trees(&mut self, (a, b): Roots) -> Result<Option<(Tree, Tree)>> {
        interrupt::check()?;
        self.round += 1;
        let none = || Tree { has_rowids: true, interior: Vec::new(), leaves: Vec::new() };
        let tree =
            |source, root| if root == 0 { Ok(Some(none())) } else { Tree::read(source, root) };
        let (Some(a), Some(b)) = (tree(self.a, a)?, tree(self.b, b)?) else { return Ok(None) };
        for (tree, marks) in [(&a, &mut self.in_a), (&b, &mut self.in_b)] {
            for page in pages_of(tree) {
                marks[page as usize] = self.round;
            }
        }
        Ok(Some((a, b)))
    }

    /// Whether a page of the trees of this round is in both, and has the same bytes.
    fn stays(&self, page: u32) -> bool {
        let is_in = |marks: &[u32]| marks.get(page as usize) == Some(&self.round);
        !self.differs[page as usize] && is_in(&self.in_a) && is_in(&self.in_b)
    }

    fn scan(&mut self, roots: Roots) -> Result<Scan> {
        let Some((a, b)) = self.trees(roots)? else { return Ok(Scan::All) };
        let mut data = Vec::new();
        for page in pages_of(&a) {
            self.known[page as usize] = true;
        }
        let rows: Vec<u32> = pages_with_rows(&a).filter(|page| !self.stays(*page)).collect();
        for page in rows {
            self.a.read(page, &mut data)?;
            for chain in btree::chains(&data, page, self.a.usable).unwrap_or_default() {
                // No two rows share an overflow page, unless the file is damaged.
                let known = &mut self.known;
                btree::follow(self.a, chain, |page| {
                    !std::mem::replace(&mut known[page as usize], true)
                })?;
            }
        }
        if !(a.has_rowids && b.has_rowids) {
            let is_same = a.has_rowids == b.has_rowids
                && pages_of(&a).chain(pages_of(&b)).all(|page| self.stays(page));
            return Ok(if is_same { Scan::Ranges(Vec::new()) } else { Scan::All });
        }
        let mut ranges = self.ranges(&a, |page| !self.stays(page));
        ranges.extend(self.ranges(&b, |page| !self.stays(page)));
        Ok(Scan::Ranges(joined(ranges)))
    }

    /// The rowids that leaves may have.
    fn ranges(&self, tree: &Tree, is_wanted: impl Fn(u32) -> bool) -> Vec<(i64, i64)> {
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        let mut first = i64::MIN;
        for (page, last) in &tree.leaves {
            if is_wanted(*page) {
                ranges.push((first, *last));
            }
            first = last.saturating_add(1);
        }
        ranges
    }

    /// Whether a page differs that may be an overflow page of a row that seems to be the same.
    fn has_unknown(&mut self) -> Result<bool> {
        if self.a.pages == 0 {
            return Ok(false);
        }
        let mut header = Vec::new();
        self.a.read(1, &mut header)?;
        let known = &mut self.known;
        btree::free_pages(self.a, |page| {
            if let Some(known) = known.get_mut(page as usize) {
                *known = true;
            }
        })?;
        let size = self.a.page_size as u32;
        let mut both = 1..=self.a.pages.min(self.b.pages);
        Ok(both.any(|page| {
            self.differs[page as usize]
                && !self.known[page as usize]
                && !pages::is_lock_page(page, size)
                && !btree::is_pointer_map(self.a, &header, page)
        }))
    }

    /// Adds the rows whose overflow pages differ although their own page is the same.
    fn add_overwritten(&mut self, roots: Roots, scan: &mut Scan) -> Result<()> {
        let Scan::Ranges(ranges) = scan else { return Ok(()) };
        let Some((a, _)) = self.trees(roots)? else { return Ok(()) };
        let mut changed = Vec::new();
        let mut data = Vec::new();
        let mut seen = vec![false; self.known.len()];
        for page in pages_with_rows(&a).filter(|page| self.stays(*page)) {
            interrupt::check()?;
            self.a.read(page, &mut data)?;
            let mut is_changed = false;
            for chain in btree::chains(&data, page, self.a.usable).unwrap_or_default() {
                btree::follow(self.a, chain, |page| {
                    is_changed |= self.differs[page as usize];
                    !is_changed && !std::mem::replace(&mut seen[page as usize], true)
                })?;
            }
            if is_changed {
                changed.push(page);
            }
        }
        if !changed.is_empty() && !a.has_rowids {
            *scan = Scan::All;
        } else if !changed.is_empty() {
            changed.sort_unstable();
            ranges.extend(self.ranges(&a, |page| changed.binary_search(&page).is_ok()));
            *ranges = joined(std::mem::take(ranges));
        }
        Ok(())
    }
}

fn pages_of(tree: &Tree) -> impl Iterator<Item = u32> {
    tree.interior.iter().copied().chain(tree.leaves.iter().map(|(page, _)| *page))
}

/// The interior pages of an index have keys too.
fn pages_with_rows(tree: &Tree) -> impl Iterator<Item = u32> {
    pages_of(tree).skip(if tree.has_rowids { tree.interior.len() } else { 0 })
}

/// Sorts the ranges, and joins those that touch.
fn joined(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}
