//! The call of an event trigger: which command has just been executed.

use pgrx::pg_sys;
use std::ffi::CStr;

/// A command that an event trigger is told of.
pub struct Command<'a>(&'a pg_sys::EventTriggerData);

/// What a GRANT or REVOKE names.
#[derive(Default)]
pub struct Granted {
    pub tables: Vec<pg_sys::Oid>,
    /// All tables in these schemas.
    pub schemas: Vec<pg_sys::Oid>,
}

/// Runs `f` for the event trigger that called; `None` if it was none.
///
/// # Safety
/// `call` must be what the server has called a function of this library with.
pub unsafe fn serve<T>(call: pg_sys::FunctionCallInfo, f: impl FnOnce(&Command) -> T) -> Option<T> {
    // SAFETY: the server's call, whose context is a node of the type that its tag says, and lives as long as the call.
    let data = unsafe {
        let context = (*call).context.as_ref()?;
        match context.type_ {
            pg_sys::NodeTag::T_EventTriggerData => {
                &*std::ptr::from_ref(context).cast::<pg_sys::EventTriggerData>()
            }
            _ => return None,
        }
    };
    Some(f(&Command(data)))
}

/// The extension whose script runs: one that is created, updated or altered.
pub fn extension_of_script() -> Option<pg_sys::Oid> {
    // SAFETY: reads globals of the backend.
    unsafe { pg_sys::creating_extension.then_some(pg_sys::CurrentExtensionObject) }
}

impl Command<'_> {
    /// What the command dropped is told, not what it made or altered.
    pub fn is_drop(&self) -> bool {
        // SAFETY: a C string that lives as long as the call.
        unsafe { CStr::from_ptr(self.0.event) == c"sql_drop" }
    }

    /// Such as `ALTER TABLE`.
    pub fn tag(&self) -> String {
        // SAFETY: the server's table of the names of its commands.
        let name = unsafe { CStr::from_ptr(pg_sys::GetCommandTagName(self.0.tag)) };
        name.to_string_lossy().into_owned()
    }

    /// The table that an ALTER TABLE names, which is told when the command has ended. To be asked under the search path of the
    /// command.
    pub fn altered(&self) -> Option<pg_sys::Oid> {
        // SAFETY: the parse tree lives as long as the call; a node is of the type that its tag says.
        unsafe {
            let node = self.0.parsetree.as_ref()?;
            if node.type_ != pg_sys::NodeTag::T_AlterTableStmt {
                return None;
            }
            let table = (*self.0.parsetree.cast::<pg_sys::AlterTableStmt>()).relation;
            Some(relation(table)).filter(|found| *found != pg_sys::InvalidOid)
        }
    }

    /// The tables whose privileges the command changes, which the server does not list. To be asked under the search path
    /// of the command. Nothing of a command that is no GRANT or REVOKE by itself.
    pub fn granted(&self) -> Granted {
        let mut granted = Granted::default();
        // SAFETY: the parse tree lives as long as the call; each node is of the type that its tag says, and of a GRANT on
        // tables the objects are ranges, or names of schemas.
        unsafe {
            let Some(node) = self.0.parsetree.as_ref() else {
                return granted;
            };
            if node.type_ != pg_sys::NodeTag::T_GrantStmt {
                return granted;
            }
            let grant = &*self.0.parsetree.cast::<pg_sys::GrantStmt>();
            if grant.objtype != pg_sys::ObjectType::OBJECT_TABLE {
                return granted;
            }
            for object in nodes(grant.objects) {
                match (*object).type_ {
                    pg_sys::NodeTag::T_RangeVar => {
                        granted.tables.push(relation(object.cast()));
                    }
                    pg_sys::NodeTag::T_String => {
                        #[cfg(since_pg15)]
                        let name = (*object.cast::<pg_sys::String>()).sval;
                        #[cfg(not(since_pg15))]
                        let name = (*object.cast::<pg_sys::Value>()).val.str_;
                        granted.schemas.push(pg_sys::get_namespace_oid(name, true));
                    }
                    _ => {}
                }
            }
        }
        granted
    }
}

/// The relation of that name; none is invalid.
///
/// # Safety
/// A range of a parse tree.
unsafe fn relation(range: *const pg_sys::RangeVar) -> pg_sys::Oid {
    // SAFETY: a look-up in catalogs, which takes no lock and calls nothing back.
    unsafe {
        pg_sys::RangeVarGetRelidExtended(
            range,
            pg_sys::NoLock as pg_sys::LOCKMODE,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    }
}

/// # Safety
/// A list of nodes, or null.
unsafe fn nodes(list: *const pg_sys::List) -> Vec<*mut pg_sys::Node> {
    // SAFETY: a list has as many elements as it says.
    unsafe {
        let Some(list) = list.as_ref() else {
            return Vec::new();
        };
        let node = |at: usize| (*list.elements.add(at)).ptr_value.cast::<pg_sys::Node>();
        (0..list.length as usize).map(node).collect()
    }
}
