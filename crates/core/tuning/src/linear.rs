//! Triangular matrices, as rows: row `i` has `i + 1` numbers.

/// A lower triangular matrix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lower(pub Vec<Vec<f64>>);

/// The sum of products; the longer side is cut.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Lower {
    /// The factor `L` of a symmetric matrix `L·Lᵀ`, whose lower half is given; `None` when it is not positive definite.
    pub fn factor(half: &[Vec<f64>]) -> Option<Self> {
        let mut lower = Self(Vec::with_capacity(half.len()));
        for row in half {
            lower.grow(row)?;
        }
        Some(lower)
    }

    /// Adds one row of the symmetric matrix, its diagonal last.
    pub fn grow(&mut self, row: &[f64]) -> Option<()> {
        let (diagonal, rest) = row.split_last()?;
        let mut new = self.solve(rest);
        let left = diagonal - dot(&new, &new);
        if !left.is_finite() || left <= 0.0 {
            return None;
        }
        new.push(left.sqrt());
        self.0.push(new);
        Some(())
    }

    /// `x` of `L·x = b`.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x: Vec<f64> = Vec::with_capacity(b.len() + 1);
        for (row, b) in self.0.iter().zip(b) {
            let diagonal = row.last().copied().unwrap_or(1.0);
            let next = (b - dot(row, &x)) / diagonal;
            x.push(next);
        }
        x
    }

    /// `x` of `Lᵀ·x = b`.
    pub fn solve_transposed(&self, b: &[f64]) -> Vec<f64> {
        let mut left = b.to_vec();
        let mut x = Vec::with_capacity(b.len());
        for row in self.0.iter().rev() {
            let Some((diagonal, rest)) = row.split_last() else {
                continue;
            };
            let Some(value) = left.pop() else { continue };
            let value = value / diagonal;
            for (left, entry) in left.iter_mut().zip(rest) {
                *left -= entry * value;
            }
            x.push(value);
        }
        x.reverse();
        x
    }

    /// The logarithm of the determinant of `L·Lᵀ`.
    pub fn log_determinant(&self) -> f64 {
        2.0 * self.0.iter().filter_map(|row| row.last()).map(|d| d.ln()).sum::<f64>()
    }

    /// The lower half of the inverse of `L·Lᵀ`.
    pub fn inverse(&self) -> Vec<Vec<f64>> {
        let size = self.0.len();
        // Columns of the inverse of L: column i is zero above its own place.
        let columns: Vec<Vec<f64>> = (0..size)
            .map(|i| {
                let mut column: Vec<f64> = Vec::with_capacity(size - i);
                for (at, row) in self.0.iter().enumerate().skip(i) {
                    let known = row.get(i..at).unwrap_or_default();
                    let target = if at == i { 1.0 } else { 0.0 };
                    let diagonal = row.last().copied().unwrap_or(1.0);
                    column.push((target - dot(known, &column)) / diagonal);
                }
                column
            })
            .collect();
        columns
            .iter()
            .enumerate()
            .map(|(i, right)| {
                let upper = columns.iter().take(i + 1).enumerate();
                upper
                    .map(|(j, left)| dot(left.get(i - j..).unwrap_or_default(), right))
                    .collect()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half() -> Vec<Vec<f64>> {
        vec![vec![4.0], vec![2.0, 5.0], vec![0.5, 1.0, 3.0]]
    }

    fn at(half: &[Vec<f64>], i: usize, j: usize) -> f64 {
        half[i.max(j)][i.min(j)]
    }

    #[test]
    fn a_factor_solves_and_inverts() {
        let half = half();
        let lower = Lower::factor(&half).unwrap();
        let b = [1.0, -2.0, 0.25];
        let x = lower.solve_transposed(&lower.solve(&b));
        for (i, b) in b.iter().enumerate() {
            let product: f64 = (0..3).map(|j| at(&half, i, j) * x[j]).sum();
            assert!((product - b).abs() < 1e-12);
        }
        let inverse = lower.inverse();
        for i in 0..3 {
            for j in 0..3 {
                let product: f64 = (0..3).map(|k| at(&half, i, k) * at(&inverse, k, j)).sum();
                let identity = if i == j { 1.0 } else { 0.0 };
                assert!((product - identity).abs() < 1e-12, "{i} {j}: {product}");
            }
        }
        let determinant = 4.0 * (15.0 - 1.0) - 2.0 * (6.0 - 0.5) + 0.5 * (2.0 - 2.5);
        assert!((lower.log_determinant() - f64::ln(determinant)).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        assert!(Lower::factor(&[vec![1.0], vec![2.0, 1.0]]).is_none());
        assert!(Lower::factor(&[vec![f64::NAN]]).is_none());
    }
}
