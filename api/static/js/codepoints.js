// The service counts code points, JavaScript counts UTF-16 units. This goes from the one to the other.

export class CodePoints {
  /** Remembers where the pairs are: most texts have none. */
  constructor(text) {
    this.text = text;
    this.pairs = []; // code point offsets of the characters that take two units
    for (const match of text.matchAll(/[\ud800-\udbff][\udc00-\udfff]/g)) {
      this.pairs.push(match.index - this.pairs.length);
    }
    this.length = text.length - this.pairs.length;
  }

  /** Where code point `offset` begins, in units. */
  unit(offset) {
    let low = 0;
    let high = this.pairs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.pairs[middle] < offset) low = middle + 1;
      else high = middle;
    }
    return offset + low;
  }

  slice(start, end) {
    return this.text.slice(this.unit(start), this.unit(end));
  }
}
