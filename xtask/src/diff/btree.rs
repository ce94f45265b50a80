//! The b-trees of a database (sqlite.org/fileformat.html), of which only interior pages are read.

use anyhow::Result;

use super::source::Source;
use crate::pages::{HEADER, is_lock_page};

const TABLE_INTERIOR: u8 = 0x05;
const TABLE_LEAF: u8 = 0x0d;
const INDEX_INTERIOR: u8 = 0x02;
const INDEX_LEAF: u8 = 0x0a;

/// No b-tree of a valid database is deeper.
const DEPTH: u32 = 20;

/// The pages of a b-tree.
pub struct Tree {
    /// Whether its rows have rowids; else it is an index or a table WITHOUT ROWID.
    pub has_rowids: bool,
    pub interior: Vec<u32>,
    /// In order; of a tree with rowids each with the largest one that it may have.
    pub leaves: Vec<(u32, i64)>,
}

impl Tree {
    /// `None` if it is malformed.
    ///
    /// # Errors
    ///
    /// A page cannot be read.
    pub fn read(source: &Source, root: u32) -> Result<Option<Self>> {
        let Some((height, has_rowids)) = height(source, root)? else { return Ok(None) };
        let mut tree = Self { has_rowids, interior: Vec::new(), leaves: Vec::new() };
        let is_valid = tree.descend(source, root, i64::MAX, height)?.is_some();
        Ok(is_valid.then_some(tree))
    }

    /// Adds a subtree; all its leaves are equally deep.
    fn descend(
        &mut self,
        source: &Source,
        page: u32,
        last: i64,
        height: u32,
    ) -> Result<Option<()>> {
        let known = self.interior.len() + self.leaves.len();
        if page == 0 || page > source.pages || known >= source.pages as usize {
            return Ok(None);
        }
        if height == 0 {
            self.leaves.push((page, last));
            return Ok(Some(()));
        }
        self.interior.push(page);
        let mut data = Vec::new();
        source.read(page, &mut data)?;
        let Some(children) = children(&data, page, self.has_rowids, last) else { return Ok(None) };
        for (child, last) in children {
            if self.descend(source, child, last, height - 1)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }
}

/// The number of levels above the leaves, and whether the tree has rowids.
fn height(source: &Source, root: u32) -> Result<Option<(u32, bool)>> {
    let (mut page, mut data) = (root, Vec::new());
    for height in 0..DEPTH {
        if page == 0 || page > source.pages {
            return Ok(None);
        }
        source.read(page, &mut data)?;
        page = match data.get(start(page)) {
            Some(&TABLE_LEAF) => return Ok(Some((height, true))),
            Some(&INDEX_LEAF) => return Ok(Some((height, false))),
            Some(&(TABLE_INTERIOR | INDEX_INTERIOR)) => match u32_at(&data, start(page) + 8) {
                Some(rightmost) => rightmost,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
    }
    Ok(None)
}

/// Where the b-tree begins in a page.
fn start(page: u32) -> usize {
    if page == 1 { HEADER } else { 0 }
}

/// The children of an interior page, each with the largest rowid that it may have.
fn children(data: &[u8], page: u32, has_rowids: bool, last: i64) -> Option<Vec<(u32, i64)>> {
    let kind = if has_rowids { TABLE_INTERIOR } else { INDEX_INTERIOR };
    if *data.get(start(page))? != kind {
        return None;
    }
    let cell = |cell: usize| {
        let last = if has_rowids { varint(data, cell + 4)?.0.cast_signed() } else { last };
        Some((u32_at(data, cell)?, last))
    };
    let mut children = cells(data, page)?.map(cell).collect::<Option<Vec<_>>>()?;
    children.push((u32_at(data, start(page) + 8)?, last));
    Some(children)
}

/// The offsets of the cells of a page.
fn cells(data: &[u8], page: u32) -> Option<impl Iterator<Item = usize>> {
    let start = start(page);
    let is_interior = matches!(data.get(start)?, &(TABLE_INTERIOR | INDEX_INTERIOR));
    let array = start + if is_interior { 12 } else { 8 };
    let count = usize::from(u16_at(data, start + 3)?);
    let pointers = data.get(array..array + 2 * count)?;
    Some(pointers.chunks_exact(2).map(|it| u16::from_be_bytes([it[0], it[1]]).into()))
}

/// A chain of overflow pages: the first one, and their number.
pub type Chain = (u32, u64);

/// The overflow pages of the cells of a page that has rows or keys; `None` if it is malformed.
pub fn chains(data: &[u8], page: u32, usable: usize) -> Option<Vec<Chain>> {
    let kind = *data.get(start(page))?;
    let (child, limit) = match kind {
        TABLE_LEAF => (0, usable.checked_sub(35)?),
        INDEX_LEAF => (0, (usable.checked_sub(12)? * 64 / 255).checked_sub(23)?),
        INDEX_INTERIOR => (4, (usable.checked_sub(12)? * 64 / 255).checked_sub(23)?),
        _ => return None,
    };
    let least = ((usable - 12) * 32 / 255).checked_sub(23)?;
    let mut chains = Vec::new();
    for cell in cells(data, page)? {
        let (payload, mut at) = varint(data, cell + child)?;
        if payload <= limit as u64 {
            continue;
        }
        if kind == TABLE_LEAF {
            at = varint(data, at)?.1;
        }
        let fits = least + ((payload - least as u64) % (usable as u64 - 4)) as usize;
        let here = if fits <= limit { fits } else { least };
        let pages = (payload - here as u64).div_ceil(usable as u64 - 4);
        chains.push((u32_at(data, at + here)?, pages));
    }
    Some(chains)
}

/// Calls `each` for the pages of a chain until it returns false.
///
/// # Errors
///
/// A page cannot be read.
pub fn follow(source: &Source, chain: Chain, mut each: impl FnMut(u32) -> bool) -> Result<()> {
    let (mut page, mut left) = (chain.0, chain.1.min(source.pages.into()));
    let mut data = Vec::new();
    while left > 0 && page > 0 && page <= source.pages && each(page) {
        left -= 1;
        if left > 0 {
            source.read(page, &mut data)?;
            page = u32_at(&data, 0).unwrap_or(0);
        }
    }
    Ok(())
}

/// Calls `each` for the pages that are in no b-tree: of the freelist.
///
/// # Errors
///
/// A page cannot be read.
pub fn free_pages(source: &Source, mut each: impl FnMut(u32)) -> Result<()> {
    let mut data = Vec::new();
    source.read(1, &mut data)?;
    let mut trunk = u32_at(&data, 32).unwrap_or(0);
    let mut left = source.pages;
    while trunk > 0 && trunk <= source.pages && left > 0 {
        left -= 1;
        each(trunk);
        source.read(trunk, &mut data)?;
        let count = u32_at(&data, 4).unwrap_or(0) as usize;
        let leaves = data.get(8..8 + 4 * count).unwrap_or_default();
        leaves.chunks_exact(4).filter_map(|it| u32_at(it, 0)).for_each(&mut each);
        trunk = u32_at(&data, 0).unwrap_or(0);
    }
    Ok(())
}

/// Whether a page has only pointers between other pages, in a database with `auto_vacuum`.
pub fn is_pointer_map(source: &Source, header: &[u8], page: u32) -> bool {
    if u32_at(header, 52).unwrap_or(0) == 0 || page < 2 {
        return false;
    }
    let each = (source.usable / 5 + 1) as u32;
    let map = (page - 2) / each * each + 2;
    let size = source.page_size as u32;
    page == if is_lock_page(map, size) { map + 1 } else { map }
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

/// A number of one to nine bytes, and the offset after it.
fn varint(data: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for i in 0..8 {
        let byte = *data.get(at + i)?;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value, at + i + 1));
        }
    }
    Some((value << 8 | u64::from(*data.get(at + 8)?), at + 9))
}
