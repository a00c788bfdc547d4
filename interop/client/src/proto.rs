//! Generated code, nested as its packages are: one package's code names another's by that path.

macro_rules! generated {
    ($package:literal) => {
        include!(concat!("generated/", $package, ".rs"));
    };
}

#[allow(missing_docs, unreachable_pub, unused_qualifications, reason = "generated: the generator decides")]
#[allow(clippy::all, clippy::pedantic, reason = "generated: the generator decides")]
pub(crate) mod grpc {
    pub(crate) mod testing {
        generated!("grpc.testing");
    }
}

#[allow(missing_docs, unreachable_pub, unused_qualifications, reason = "generated: the generator decides")]
#[allow(clippy::all, clippy::pedantic, reason = "generated: the generator decides")]
pub(crate) mod xds {
    pub(crate) mod data {
        pub(crate) mod orca {
            pub(crate) mod v3 {
                generated!("xds.data.orca.v3");
            }
        }
    }
    pub(crate) mod service {
        pub(crate) mod orca {
            pub(crate) mod v3 {
                generated!("xds.service.orca.v3");
            }
        }
    }
}
