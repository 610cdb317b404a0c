//! The order of keys. Objects are kept sorted; but a query such as `{name: name, id: id}` asks for an order, which
//! tables and tab-separated values keep.

use jmespath::ast::Ast;
use serde_json::{Map, Value};

/// The orders that a query asks for.
#[derive(Debug, Default)]
pub(super) struct KeyOrder {
    orders: Vec<Vec<String>>,
}

impl KeyOrder {
    /// The orders in an expression.
    pub(super) fn of(ast: &Ast) -> Self {
        let mut order = Self::default();
        order.collect(ast);
        order
    }

    fn collect(&mut self, ast: &Ast) {
        match ast {
            Ast::MultiHash { elements, .. } => {
                self.orders.push(elements.iter().map(|element| element.key.clone()).collect());
                elements.iter().for_each(|element| self.collect(&element.value));
            }
            Ast::MultiList { elements, .. } => elements.iter().for_each(|element| self.collect(element)),
            Ast::Function { args, .. } => args.iter().for_each(|arg| self.collect(arg)),
            Ast::Comparison { lhs, rhs, .. }
            | Ast::Projection { lhs, rhs, .. }
            | Ast::And { lhs, rhs, .. }
            | Ast::Or { lhs, rhs, .. }
            | Ast::Subexpr { lhs, rhs, .. } => {
                self.collect(lhs);
                self.collect(rhs);
            }
            Ast::Condition { predicate, then, .. } => {
                self.collect(predicate);
                self.collect(then);
            }
            Ast::Expref { ast, .. } => self.collect(ast),
            Ast::Flatten { node, .. } | Ast::Not { node, .. } | Ast::ObjectValues { node, .. } => self.collect(node),
            Ast::Identity { .. } | Ast::Field { .. } | Ast::Index { .. } | Ast::Literal { .. } | Ast::Slice { .. } => {}
        }
    }

    /// An object's entries in the order asked for, else sorted.
    pub(super) fn entries<'v>(&self, map: &'v Map<String, Value>) -> Vec<(&'v String, &'v Value)> {
        let wanted =
            self.orders.iter().find(|order| order.len() == map.len() && order.iter().all(|key| map.contains_key(key)));
        match wanted {
            Some(order) => order.iter().filter_map(|key| map.get_key_value(key)).collect(),
            None => map.iter().collect(),
        }
    }
}
