//! Whom to trust (C2SP tlog-policy): known logs, known witnesses, and how many of them must have cosigned.

use crate::cosignature::UnixSeconds;
use crate::encoding::decimal;
use crate::{Checkpoint, Error, SignedNote, VerifierKey};
use std::collections::{BTreeMap, BTreeSet};

/// A policy: what makes a checkpoint valid.
///
/// ```
/// # let key = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
/// let policy = tlog::Policy::from_bytes(format!("log {key}\nquorum none\n").as_bytes())?;
/// assert_eq!(policy.logs().len(), 1);
/// # Ok::<(), tlog::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    logs: Vec<VerifierKey>,
    witnesses: Vec<Witness>,
    /// Each refers only to earlier ones.
    groups: Vec<Group>,
    quorum: Quorum,
}

/// A cosigner whose word counts.
#[derive(Clone, Debug)]
pub struct Witness {
    /// What the policy calls it. No other file knows that name.
    pub name: String,
    pub key: VerifierKey,
    pub url: Option<String>,
}

/// Whose cosignatures are required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quorum {
    None,
    /// The member with this name in the policy.
    Of(String, Member),
}

/// A witness or a group, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    Witness(usize),
    Group(usize),
}

#[derive(Clone, Debug)]
struct Group {
    threshold: usize,
    members: Vec<Member>,
}

/// A checkpoint that a known log has signed, and enough witnesses have cosigned.
#[derive(Clone, Debug)]
pub struct VerifiedCheckpoint {
    pub checkpoint: Checkpoint,
    /// The log's key.
    pub log: VerifierKey,
    /// Cosignatures by witnesses of the policy.
    pub cosigned: Vec<Cosigned>,
}

/// A witness's statement that the checkpoint was the newest that it had seen of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Cosigned {
    /// What the policy calls the witness, for people: names that are not UTF-8 may look alike.
    pub witness: String,
    pub key: VerifierKey,
    pub time: UnixSeconds,
}

impl Policy {
    /// The policy that trusts this log alone and asks for no witness.
    pub fn of_log(log: VerifierKey) -> Policy {
        Policy::of_logs([log])
    }

    /// The policy that trusts these logs and asks for no witness.
    pub fn of_logs(logs: impl IntoIterator<Item = VerifierKey>) -> Policy {
        Policy {
            logs: logs.into_iter().collect(),
            witnesses: Vec::new(),
            groups: Vec::new(),
            quorum: Quorum::None,
        }
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// With the number of the first line that breaks a rule of the specification.
    pub fn from_bytes(file: &[u8]) -> Result<Policy, Error> {
        let mut parser = Parser::default();
        let mut lines: Vec<_> = file.split(|byte| *byte == b'\n').collect();
        let rest = lines.pop().unwrap_or_default();
        for (number, line) in lines.iter().enumerate() {
            parser.line(line).map_err(|what| Error::Policy {
                line: number + 1,
                what,
            })?;
        }
        let at_end = |what: &str| Error::Policy {
            line: lines.len() + 1,
            what: what.to_owned(),
        };
        if !rest.is_empty() {
            return Err(at_end("the last line has no newline"));
        }
        let quorum = parser
            .quorum
            .ok_or_else(|| at_end("there is no quorum line"))?;
        Ok(Policy {
            logs: parser.logs,
            witnesses: parser.witnesses,
            groups: parser.groups,
            quorum,
        })
    }

    pub fn logs(&self) -> &[VerifierKey] {
        &self.logs
    }

    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// The checkpoint of a note, if a log of the policy has signed it, every signature by a known key is
    /// true, and the quorum has cosigned it.
    ///
    /// # Errors
    /// If any of that is not so.
    pub fn verify(&self, note: &SignedNote) -> Result<VerifiedCheckpoint, Error> {
        let verified = self.verify_log(note)?;
        self.check_quorum(&verified)?;
        Ok(verified)
    }

    /// As [`Policy::verify`], without the quorum.
    ///
    /// # Errors
    /// As [`Policy::verify`].
    pub fn verify_log(&self, note: &SignedNote) -> Result<VerifiedCheckpoint, Error> {
        let checkpoint: Checkpoint = note.text().parse()?;
        let origin = checkpoint.origin().to_owned();
        let of_log = |key: &&VerifierKey| key.name().as_str() == origin;
        let logs: Vec<_> = self.logs.iter().filter(of_log).collect();
        if logs.is_empty() {
            return Err(Error::UnknownLog { origin });
        }
        let witness_keys = self.witnesses.iter().map(|witness| &witness.key);
        let known: Vec<_> = logs.iter().copied().chain(witness_keys).collect();
        let signatures = note.verify(known).or_else(|error| match error {
            Error::NotSigned => Ok(Vec::new()),
            error => Err(error),
        })?;
        let by_log = signatures.iter().find(|(_, key)| logs.contains(key));
        let log = match by_log {
            Some((_, key)) => (*key).clone(),
            None => return Err(Error::NotSignedByLog { origin }),
        };
        let cosigned = self.witnesses.iter().filter_map(|witness| {
            let (signature, key) = signatures.iter().find(|(_, key)| **key == witness.key)?;
            Some(Cosigned {
                witness: witness.name.clone(),
                key: witness.key.clone(),
                time: signature.time(key)?,
            })
        });
        let cosigned = cosigned.collect();
        Ok(VerifiedCheckpoint {
            checkpoint,
            log,
            cosigned,
        })
    }

    /// Whether the witnesses that have cosigned satisfy the quorum.
    ///
    /// # Errors
    /// If they do not.
    pub fn check_quorum(&self, verified: &VerifiedCheckpoint) -> Result<(), Error> {
        let Quorum::Of(name, member) = &self.quorum else {
            return Ok(());
        };
        let cosigned = |witness: &Witness| verified.cosigned.iter().any(|c| c.key == witness.key);
        let mut satisfied: Vec<bool> = Vec::with_capacity(self.groups.len());
        let holds = |satisfied: &[bool], member: &Member| match *member {
            Member::Witness(number) => cosigned(&self.witnesses[number]),
            Member::Group(number) => satisfied[number],
        };
        for group in &self.groups {
            let members = group.members.iter();
            let count = members.filter(|member| holds(&satisfied, member)).count();
            satisfied.push(count >= group.threshold);
        }
        match holds(&satisfied, member) {
            true => Ok(()),
            false => Err(Error::Quorum {
                quorum: name.clone(),
                cosigned: verified.cosigned.len(),
            }),
        }
    }
}

/// What the lines so far define.
#[derive(Default)]
struct Parser {
    logs: Vec<VerifierKey>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    names: BTreeMap<Vec<u8>, Member>,
    grouped: BTreeSet<Vec<u8>>,
    quorum: Option<Quorum>,
}

impl Parser {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        let allowed = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..);
        if !line.iter().all(allowed) {
            return Err("it has a control character".to_owned());
        }
        let items: Vec<&[u8]> = line
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .filter(|item| !item.is_empty())
            .collect();
        match items.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", key] | [b"log", key, _] => self.log(key),
            [b"witness", name, key] => self.witness(name, key, None),
            [b"witness", name, key, url] => self.witness(name, key, Some(url)),
            [b"group", name, threshold, members @ ..] if !members.is_empty() => {
                self.group(name, threshold, members)
            }
            [b"quorum", name] => self.quorum(name),
            [keyword, ..] => Err(format!(
                "it is no line that begins with {:?}",
                shown(keyword)
            )),
        }
    }

    fn log(&mut self, key: &[u8]) -> Result<(), String> {
        let key = verifier_key(key)?;
        let known = |log: &VerifierKey| log.public_key() == key.public_key();
        if self.logs.iter().any(known) {
            return Err("the key is that of another log".to_owned());
        }
        self.logs.push(key);
        Ok(())
    }

    fn witness(&mut self, name: &[u8], key: &[u8], url: Option<&[u8]>) -> Result<(), String> {
        let key = verifier_key(key)?;
        if !key.signature_type().is_cosignature() {
            return Err("the key is not one that cosigns".to_owned());
        }
        let known = |witness: &Witness| witness.key.public_key() == key.public_key();
        if self.witnesses.iter().any(known) {
            return Err("the key is that of another witness".to_owned());
        }
        self.define(name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(Witness {
            name: shown(name),
            key,
            url: url.map(shown),
        });
        Ok(())
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], names: &[&[u8]]) -> Result<(), String> {
        let mut members = Vec::new();
        for member in names {
            members.push(self.defined(member)?);
            if !self.grouped.insert(member.to_vec()) {
                return Err(format!("{:?} is in a group already", shown(member)));
            }
        }
        let number = std::str::from_utf8(threshold).ok().and_then(decimal);
        let threshold = match (threshold, number) {
            (b"any", _) => 1,
            (b"all", _) => members.len(),
            (_, Some(number)) if (1..=members.len() as u64).contains(&number) => number as usize,
            _ => {
                return Err(format!(
                    "the threshold is not any, all, or 1 to {}",
                    members.len()
                ));
            }
        };
        self.define(name, Member::Group(self.groups.len()))?;
        self.groups.push(Group { threshold, members });
        Ok(())
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), String> {
        if self.quorum.is_some() {
            return Err("there is a quorum line already".to_owned());
        }
        self.quorum = Some(match name {
            b"none" => Quorum::None,
            name => Quorum::Of(shown(name), self.defined(name)?),
        });
        Ok(())
    }

    fn define(&mut self, name: &[u8], member: Member) -> Result<(), String> {
        match name {
            b"none" => Err("the name none is taken".to_owned()),
            name => match self.names.insert(name.to_vec(), member) {
                None => Ok(()),
                Some(_) => Err(format!("{:?} is defined already", shown(name))),
            },
        }
    }

    fn defined(&self, name: &[u8]) -> Result<Member, String> {
        let member = self.names.get(name).copied();
        member.ok_or_else(|| format!("{:?} is not defined on an earlier line", shown(name)))
    }
}

fn verifier_key(text: &[u8]) -> Result<VerifierKey, String> {
    let text = std::str::from_utf8(text).map_err(|_| "the key is not UTF-8".to_owned())?;
    text.parse().map_err(|error: Error| error.to_string())
}

/// Octets for people: what is not UTF-8 is shown as a replacement character.
fn shown(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
