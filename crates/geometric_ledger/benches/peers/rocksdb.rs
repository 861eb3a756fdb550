//! RocksDB by its C API, from the library that the system has (Debian: librocksdb-dev). It is found while the
//! program runs, so that nobody who builds this needs it.

use libloading::Library;
use std::ffi::{CString, c_char, c_int, c_uchar, c_void};
use std::path::Path;
use std::ptr::null_mut;

type Handle = *mut c_void;
type Errors = *mut *mut c_char;

/// The functions of `rocksdb/c.h` that are used, under their names without the prefix.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            _library: Library,
        }

        impl Functions {
            fn load(library: Library) -> Result<Self, libloading::Error> {
                Ok(Functions {
                    $($name: {
                        let name = concat!("rocksdb_", stringify!($name));
                        // SAFETY: the types are those of rocksdb/c.h, and the library stays loaded for as long
                        // as this is there.
                        *unsafe { library.get(name.as_bytes())? }
                    },)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    options_create: fn() -> Handle;
    options_set_create_if_missing: fn(Handle, c_uchar);
    options_increase_parallelism: fn(Handle, c_int);
    options_set_compression: fn(Handle, c_int);
    options_set_block_based_table_factory: fn(Handle, Handle);
    block_based_options_create: fn() -> Handle;
    block_based_options_set_block_cache: fn(Handle, Handle);
    block_based_options_set_filter_policy: fn(Handle, Handle);
    filterpolicy_create_bloom_full: fn(f64) -> Handle;
    cache_create_lru: fn(usize) -> Handle;
    open: fn(Handle, *const c_char, Errors) -> Handle;
    close: fn(Handle);
    writeoptions_create: fn() -> Handle;
    writeoptions_set_sync: fn(Handle, c_uchar);
    readoptions_create: fn() -> Handle;
    writebatch_create: fn() -> Handle;
    writebatch_put: fn(Handle, *const c_char, usize, *const c_char, usize);
    writebatch_destroy: fn(Handle);
    write: fn(Handle, Handle, Handle, Errors);
    get: fn(Handle, Handle, *const c_char, usize, *mut usize, Errors) -> *mut c_char;
    free: fn(*mut c_void);
}

pub struct RocksDb {
    functions: Functions,
    database: Handle,
    synced: Handle,
    unsynced: Handle,
    reading: Handle,
}

// SAFETY: a database, and options that nobody changes, may be used by several threads at once (rocksdb/db.h).
unsafe impl Send for RocksDb {}
// SAFETY: as above.
unsafe impl Sync for RocksDb {}

/// Whether the system has RocksDB.
pub fn library() -> Option<Library> {
    let names = ["librocksdb.so", "librocksdb.so.7.8"];
    names.into_iter().find_map(|name| {
        // SAFETY: what RocksDB does when it is loaded is all right anywhere.
        unsafe { Library::new(name) }.ok()
    })
}

/// Nothing may have gone wrong.
fn check(error: *mut c_char) {
    if !error.is_null() {
        // SAFETY: an error of RocksDB is a string that ends with 0.
        let text = unsafe { std::ffi::CStr::from_ptr(error) };
        panic!("RocksDB: {}", text.to_string_lossy());
    }
}

impl RocksDb {
    /// With a filter for each file, and the compression off that keys and balances would not gain by.
    pub fn open(library: Library, path: &Path, cache: usize) -> Self {
        let functions = Functions::load(library).expect("RocksDB's C API");
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let mut error = null_mut();
        let f = &functions;
        // SAFETY: each handle is of the kind that the function is for; those of options live for ever.
        let (database, synced, unsynced, reading) = unsafe {
            let table = (f.block_based_options_create)();
            (f.block_based_options_set_block_cache)(table, (f.cache_create_lru)(cache));
            let filter = (f.filterpolicy_create_bloom_full)(10.0);
            (f.block_based_options_set_filter_policy)(table, filter);
            let options = (f.options_create)();
            (f.options_set_create_if_missing)(options, 1);
            (f.options_increase_parallelism)(options, 2);
            (f.options_set_compression)(options, 0);
            (f.options_set_block_based_table_factory)(options, table);
            let database = (f.open)(options, path.as_ptr(), &mut error);
            let (synced, unsynced) = ((f.writeoptions_create)(), (f.writeoptions_create)());
            (f.writeoptions_set_sync)(synced, 1);
            (database, synced, unsynced, (f.readoptions_create)())
        };
        check(error);
        RocksDb {
            functions,
            database,
            synced,
            unsynced,
            reading,
        }
    }

    pub fn get<const N: usize>(&self, key: &[u8]) -> Option<[u8; N]> {
        let (mut len, mut error) = (0, null_mut());
        // SAFETY: the key is there while it is looked up; what is returned has `len` bytes, and is freed once.
        unsafe {
            let key = (key.as_ptr().cast(), key.len());
            let value = (self.functions.get)(
                self.database,
                self.reading,
                key.0,
                key.1,
                &mut len,
                &mut error,
            );
            check(error);
            if value.is_null() {
                return None;
            }
            let bytes = std::slice::from_raw_parts(value.cast::<u8>(), len).try_into();
            (self.functions.free)(value.cast());
            bytes.ok()
        }
    }

    pub fn write<'a>(&self, items: impl Iterator<Item = (&'a [u8; 32], [u8; 56])>, sync: bool) {
        let options = if sync { self.synced } else { self.unsynced };
        let mut error = null_mut();
        let f = &self.functions;
        // SAFETY: a batch copies what is put into it, and is destroyed once.
        unsafe {
            let batch = (f.writebatch_create)();
            for (key, value) in items {
                let (key, value) = (key.as_ptr().cast(), value.as_ptr().cast());
                (f.writebatch_put)(batch, key, 32, value, 56);
            }
            (f.write)(self.database, options, batch, &mut error);
            (f.writebatch_destroy)(batch);
        }
        check(error);
    }
}

impl Drop for RocksDb {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        unsafe { (self.functions.close)(self.database) };
    }
}
