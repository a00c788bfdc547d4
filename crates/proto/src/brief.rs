use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Protobuf for streams that carry a few bytes now and then, and of which a server may have thousands.
///
/// tonic sets a buffer of 8 KiB aside for each call that runs. Here it begins with [`BUFFER`](Self::BUFFER) and grows if
/// a message needs it.
#[derive(Debug)]
pub struct BriefCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> BriefCodec<T, U> {
    /// How many bytes of buffer a call begins with.
    pub const BUFFER: usize = 64;

    /// As tonic has it: messages that are ready together are sent together up to so many bytes.
    const TOGETHER: usize = 32 * 1024;

    fn buffers() -> BufferSettings {
        BufferSettings::new(Self::BUFFER, Self::TOGETHER)
    }
}

impl<T, U> Default for BriefCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BriefCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(Self::buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(Self::buffers())
    }
}
