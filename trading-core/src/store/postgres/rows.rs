//! Rows in PostgreSQL's binary format: value after value for COPY, one array a column for INSERT.
//!
//! What a value looks like comes from sqlx's encoders.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgHasArrayType, PgTypeInfo};
use sqlx::query::Query;
use sqlx::{Encode, Postgres, Type};

/// What takes the values of a row, in the order of the table's columns.
pub(super) trait RowBuffer {
    /// Takes the value of the next column.
    fn put<'q, T>(&mut self, value: T) -> Result<(), BoxDynError>
    where
        T: Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType;
}

/// A row of a COPY: its values after each other.
impl RowBuffer for PgArgumentBuffer {
    fn put<'q, T>(&mut self, value: T) -> Result<(), BoxDynError>
    where
        T: Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType,
    {
        field(self, value)
    }
}

/// The arrays of an INSERT, one a column.
#[derive(Debug, Default)]
pub(super) struct Arrays {
    columns: Vec<Array>,
    /// The column of the next value.
    next: usize,
}

impl Arrays {
    /// Goes on with the next row.
    pub(super) const fn end_row(&mut self) {
        self.next = 0;
    }

    /// Binds each array to the next parameter of a statement.
    pub(super) fn bind(self, statement: &'static str) -> Query<'static, Postgres, PgArguments> {
        self.columns.into_iter().fold(sqlx::query(statement), Query::bind)
    }
}

impl RowBuffer for Arrays {
    fn put<'q, T>(&mut self, value: T) -> Result<(), BoxDynError>
    where
        T: Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType,
    {
        if self.next == self.columns.len() {
            self.columns.push(Array::of::<T>());
        }
        if let Some(column) = self.columns.get_mut(self.next) {
            field(&mut column.values, value)?;
            column.length += 1;
        }
        self.next += 1;
        Ok(())
    }
}

/// A column as an array of PostgreSQL: <https://www.postgresql.org/docs/current/protocol-overview.html> leaves the form to
/// `array_send`: dimensions, flags, type of the elements, length, first index, and each element as a field.
#[derive(Debug)]
struct Array {
    kind: PgTypeInfo,
    element: Oid,
    length: i32,
    values: PgArgumentBuffer,
}

impl Array {
    fn of<T: Type<Postgres> + PgHasArrayType>() -> Self {
        Self {
            kind: T::array_type_info(),
            // Every type of ours is one of PostgreSQL's own, whose number is known.
            element: T::type_info().oid().unwrap_or_default(),
            length: 0,
            values: PgArgumentBuffer::default(),
        }
    }
}

impl Type<Postgres> for Array {
    fn type_info() -> PgTypeInfo {
        String::array_type_info()
    }
}

impl Encode<'_, Postgres> for Array {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let (dimensions, flags, first_index) = (1_i32, 0_i32, 1_i32);
        buffer.extend_from_slice(&dimensions.to_be_bytes());
        buffer.extend_from_slice(&flags.to_be_bytes());
        buffer.extend_from_slice(&self.element.0.to_be_bytes());
        buffer.extend_from_slice(&self.length.to_be_bytes());
        buffer.extend_from_slice(&first_index.to_be_bytes());
        buffer.extend_from_slice(&self.values);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.kind.clone())
    }
}

/// One field: its length, then its value; NULL has the length -1.
fn field<'q, T: Encode<'q, Postgres>>(
    buffer: &mut PgArgumentBuffer,
    value: T,
) -> Result<(), BoxDynError> {
    let at = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    let length = match value.encode(buffer)? {
        IsNull::No => i32::try_from(buffer.len() - at - 4)?,
        IsNull::Yes => -1,
    };
    if let Some(prefix) = buffer.get_mut(at..at + 4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::tick;
    use crate::store::postgres::tick_data;

    #[test]
    fn a_tick_gives_one_value_of_the_right_type_for_each_column() {
        let mut arrays = Arrays::default();
        for id in 0..3 {
            tick_data::put(&tick(id), &mut String::new(), &mut arrays).unwrap();
            arrays.end_row();
        }
        let kinds: Vec<String> =
            arrays.columns.iter().map(|array| array.kind.to_string().to_lowercase()).collect();
        assert_eq!(kinds, tick_data::COLUMNS.map(|(_, kind)| format!("{kind}[]")));
        assert!(arrays.columns.iter().all(|array| array.length == 3), "{arrays:?}");
    }
}
