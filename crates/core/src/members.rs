//! How the set of members changes: by count, by name, by victim. All or nothing.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::desired::Member;
use crate::ids::{NameError, Ordinal, check_host_name};
use crate::spec::REPLICAS_MAX;

/// A change of the members that was refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MembersError {
    /// More than [`REPLICAS_MAX`].
    #[error("{0} replicas are more than the limit of {REPLICAS_MAX}")]
    TooMany(usize),
    /// More members to remove than there are.
    #[error("cannot remove {asked} of {present} replicas")]
    TooFew {
        /// How many were to be removed.
        asked: usize,
        /// How many there are.
        present: usize,
    },
    /// A name that is in use.
    #[error("host name `{0}` is in use")]
    Duplicate(String),
    /// A name that no member has.
    #[error("no replica is named `{0}`")]
    Unknown(String),
    /// A name that cannot be a host name.
    #[error(transparent)]
    BadName(#[from] NameError),
}

/// The members after a change of their number: added ones take the lowest free ordinals, the highest go.
///
/// # Errors
/// [`MembersError::TooMany`].
pub fn resize(members: &[Member], count: usize) -> Result<Vec<Member>, MembersError> {
    if count <= members.len() {
        let mut kept = members.to_vec();
        kept.sort_by_key(|member| member.ordinal);
        kept.truncate(count);
        return Ok(kept);
    }
    add(members, vec![None; count - members.len()])
}

/// The members after adding one for each entry of `hosts`, which may name it.
///
/// # Errors
/// [`MembersError::TooMany`], [`MembersError::Duplicate`], [`MembersError::BadName`].
pub fn add(members: &[Member], hosts: Vec<Option<String>>) -> Result<Vec<Member>, MembersError> {
    let total = members.len() + hosts.len();
    if total > REPLICAS_MAX as usize {
        return Err(MembersError::TooMany(total));
    }
    let mut names: BTreeSet<String> = members.iter().map(Member::display_name).collect();
    let mut taken: BTreeSet<Ordinal> = members.iter().map(|member| member.ordinal).collect();
    let mut all = members.to_vec();
    for host in hosts {
        if let Some(host) = &host {
            check_host_name(host)?;
            if !names.insert(host.clone()) {
                return Err(MembersError::Duplicate(host.clone()));
            }
        }
        let free = (0..=u16::MAX).map(Ordinal).find(|ordinal| !taken.contains(ordinal));
        let ordinal = free.expect("the limit on replicas leaves free ordinals");
        taken.insert(ordinal);
        all.push(Member { ordinal, host });
    }
    all.sort_by_key(|member| member.ordinal);
    Ok(all)
}

/// The members after removing those whose display names are given.
///
/// # Errors
/// [`MembersError::Unknown`], [`MembersError::Duplicate`] if a name is given twice.
pub fn remove_named(members: &[Member], names: &[String]) -> Result<Vec<Member>, MembersError> {
    let mut rest = members.to_vec();
    let mut given = BTreeSet::new();
    for name in names {
        if !given.insert(name) {
            return Err(MembersError::Duplicate(name.clone()));
        }
        let found = rest.iter().position(|member| member.display_name() == *name);
        rest.remove(found.ok_or_else(|| MembersError::Unknown(name.clone()))?);
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordinals(members: &[Member]) -> Vec<u16> {
        members.iter().map(|member| member.ordinal.0).collect()
    }

    #[test]
    fn growing_takes_the_lowest_free_ordinals_and_shrinking_drops_the_highest() {
        let five = resize(&[], 5).unwrap();
        let gap = remove_named(&five, &["Server 2".to_owned()]).unwrap();
        assert_eq!(ordinals(&gap), [0, 2, 3, 4]);
        assert_eq!(ordinals(&resize(&gap, 6).unwrap()), [0, 1, 2, 3, 4, 5]);
        assert_eq!(ordinals(&resize(&gap, 2).unwrap()), [0, 2]);
    }

    #[test]
    fn a_refused_change_says_which_name_is_wrong() {
        let members = add(&[], vec![Some("S5".to_owned()), None]).unwrap();
        assert_eq!(add(&members, vec![Some("S5".to_owned())]), Err(MembersError::Duplicate("S5".to_owned())));
        assert_eq!(remove_named(&members, &["S9".to_owned()]), Err(MembersError::Unknown("S9".to_owned())));
        assert!(matches!(add(&members, vec![Some("a b".to_owned())]), Err(MembersError::BadName(_))));
        assert_eq!(resize(&members, 1_001), Err(MembersError::TooMany(1_001)));
    }
}
