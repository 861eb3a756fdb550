//! Acting as another role, as the server does for REFRESH MATERIALIZED VIEW.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_int;

thread_local! {
    static AS_TABLE_OWNER: Cell<bool> = const { Cell::new(false) };
}

/// True while a table is read as its owner: what calls us then is code of the owner's.
pub fn is_table_owner() -> bool {
    AS_TABLE_OWNER.get()
}

struct Within(bool);

impl Drop for Within {
    fn drop(&mut self) {
        AS_TABLE_OWNER.set(self.0);
    }
}

/// The role whose privileges count for the running code.
pub fn current() -> pg_sys::Oid {
    // SAFETY: reads a global of the backend.
    unsafe { pg_sys::GetUserId() }
}

/// Runs `f` with the privileges of the extension's owner, to reach the extension's own tables.
pub fn as_extension_owner<T>(owner: pg_sys::Oid, f: impl FnOnce() -> T) -> T {
    let _restore = Switch::to(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE);
    f()
}

/// Runs `f` as the owner of a source in a security-restricted operation: whatever code of the
/// owner's the server reaches there (index expressions, row security) runs with the owner's
/// rights only, and cannot leave anything behind in the session.
pub fn as_table_owner<T>(owner: pg_sys::Oid, f: impl FnOnce() -> T) -> T {
    let _within = Within(AS_TABLE_OWNER.replace(true));
    let _settings = super::settings::Level::open();
    let _restore = Switch::to(owner, pg_sys::SECURITY_RESTRICTED_OPERATION);
    f()
}

/// True if `role` may read every row of `relation`.
pub fn may_read_all(role: pg_sys::Oid, relation: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups; neither raises an error for a relation that is gone.
    unsafe {
        pg_sys::get_rel_relkind(relation) != 0
            && pg_sys::pg_class_aclcheck(relation, role, pg_sys::ACL_SELECT as pg_sys::AclMode)
                == pg_sys::AclResult::ACLCHECK_OK
            && pg_sys::check_enable_rls(relation, role, true)
                != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
    }
}

/// True if `role` may read these columns, by attribute number, of every row of `relation`.
pub fn may_read_columns(role: pg_sys::Oid, relation: pg_sys::Oid, columns: &[i16]) -> bool {
    if may_read_all(role, relation) {
        return true;
    }
    // SAFETY: as in `may_read_all`; a column that is gone is an error that the server raises.
    unsafe {
        pg_sys::get_rel_relkind(relation) != 0
            && pg_sys::check_enable_rls(relation, role, true)
                != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
            && columns.iter().all(|column| {
                pg_sys::pg_attribute_aclcheck(
                    relation,
                    *column,
                    role,
                    pg_sys::ACL_SELECT as pg_sys::AclMode,
                ) == pg_sys::AclResult::ACLCHECK_OK
            })
    }
}

struct Switch {
    role: pg_sys::Oid,
    context: c_int,
}

impl Switch {
    fn to(role: pg_sys::Oid, flag: u32) -> Switch {
        let mut saved = Switch {
            role: pg_sys::InvalidOid,
            context: 0,
        };
        // SAFETY: plain reads and writes of backend globals; neither call can raise an error.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut saved.role, &mut saved.context);
            pg_sys::SetUserIdAndSecContext(role, saved.context | flag as c_int);
        }
        saved
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // SAFETY: as in `to`. Also right while an error unwinds: an abort restores the same values.
        unsafe { pg_sys::SetUserIdAndSecContext(self.role, self.context) };
    }
}
